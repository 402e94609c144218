"""Bringing the catalogue up to date: the folders that changed are read again, into a copy that then replaces it."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import Standing, scan_annotations, standing_of
from megatron_patches.artefacts.folders import is_replaced, is_spoilt
from megatron_patches.artefacts.inventory.artefact import Artefact, read_artefact
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.inventory.links import Links
from megatron_patches.artefacts.inventory.scan import Folder, beneath, list_folder
from megatron_patches.artefacts.run_folder import COPIES, EVALS, RECORDS
from megatron_patches.atomic_files import temporary_path
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import printable

VERSION = 7
_STILL_CHANGING_NANOSECONDS = 2_000_000_000
"""a folder that changed so shortly before it was read may change again within one tick of its file system's clock"""

_SCHEMA = """
CREATE TABLE folders(path TEXT PRIMARY KEY, kind TEXT, run TEXT, depth INTEGER, changed INTEGER) WITHOUT ROWID;
CREATE TABLE artefacts(
    number INTEGER PRIMARY KEY, manifest TEXT UNIQUE, folder TEXT, file_size INTEGER, file_time INTEGER,
    id TEXT, kind TEXT, run TEXT, step INTEGER, samples INTEGER, tokens INTEGER, content TEXT, format TEXT, layout TEXT,
    metrics TEXT, parts TEXT, best_by TEXT, created TEXT, size INTEGER, files INTEGER, state TEXT, reason TEXT,
    cause TEXT, whereabouts TEXT, launch INTEGER, run_id TEXT, way INTEGER);
CREATE TABLE parents(parent TEXT, child INTEGER, told INTEGER, PRIMARY KEY(parent, child)) WITHOUT ROWID;
CREATE TABLE ways(number INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE crossings(what TEXT, way INTEGER, PRIMARY KEY(what, way)) WITHOUT ROWID;
CREATE TABLE copies(run TEXT, id TEXT, of TEXT, name TEXT, location TEXT, size INTEGER, whole INTEGER, verified TEXT,
    how TEXT, problem TEXT, number INTEGER);
CREATE TABLE annotations(run TEXT, kind TEXT, artefact TEXT, text TEXT, metric TEXT, value REAL);
CREATE TABLE problems(path TEXT PRIMARY KEY, folder TEXT, text TEXT) WITHOUT ROWID;
CREATE INDEX artefacts_by_run ON artefacts(run, step);
CREATE INDEX artefacts_by_id ON artefacts(id);
CREATE INDEX artefacts_by_run_id ON artefacts(run_id) WHERE run_id IS NOT NULL;
CREATE INDEX artefacts_by_way ON artefacts(way);
CREATE INDEX artefacts_by_folder ON artefacts(folder);
CREATE INDEX artefacts_by_state ON artefacts(state) WHERE state != 'valid';
CREATE INDEX evaluations ON artefacts(number) WHERE kind = 'evaluation';
CREATE INDEX parents_by_child ON parents(child);
CREATE INDEX copies_by_id ON copies(of);
CREATE INDEX annotations_by_run ON annotations(run);
CREATE INDEX annotations_by_artefact ON annotations(artefact);
"""
TAGGED = "SELECT run FROM annotations WHERE kind = 'tag' AND text = ?"
"""runs that have a tag"""
_GOLD = "FROM annotations WHERE kind = 'gold' AND value IS NOT NULL"
GOLD_METRICS_OF_RUN = f"SELECT metric, value {_GOLD} AND run = ?"
"""names and values by which the gold of a run was chosen"""
GOLD_METRICS_OF_ARTEFACT = f"SELECT metric, value {_GOLD} AND artefact = ?"
GOLD_VALUE = f"SELECT value {_GOLD} AND artefact = artefacts.id AND metric = ?"
"""in a query of artefacts: the value of a metric by which it was promoted"""
COLUMNS = (
    "manifest", "id", "kind", "run", "step", "samples", "tokens", "content", "format", "layout", "metrics", "parts",
    "best_by", "created", "size", "files", "state", "reason", "cause", "whereabouts", "launch", "run_id",
)  # fmt: skip


def changed_folders(known: list[tuple[Folder, int]], beginnings: list[Folder]) -> list[Folder]:
    """The folders whose times are not those of the last look, and beginnings that came to be since."""
    changed = [folder for folder, time_then in known if _time_of(folder.path) != time_then]
    seen = {folder.path for folder, _ in known}
    return changed + [folder for folder in beginnings if folder.path not in seen and Path(folder.path).is_dir()]


def _time_of(path: str) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return None


def renew(
    path: Path,
    beginnings: list[Folder],
    known: list[tuple[Folder, int]] | None,
    changed: list[Folder] | None,
    thorough: bool,
) -> tuple[int, int]:
    """Makes the next catalogue beside the present one and renames it; the numbers of folders and manifests read.

    Args:
        known: folders of the present one with their times; None where there is none.
        changed: folders to read again; None means all.

    Raises:
        TrainyardError: the cache's folder cannot be written to.
        FileNotFoundError: the present catalogue was deleted meanwhile.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        if known is not None:
            shutil.copyfile(path, temporary)
        with closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            if known is None:
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            waiting = beginnings if changed is None else changed
            if thorough and known is not None:
                waiting = beginnings + [folder for folder, _ in known if folder not in beginnings]
            numbers = _Writer(connection).renew(waiting)
            connection.commit()
        temporary.replace(path)
    except FileNotFoundError:
        raise  # somebody deleted the present one meanwhile: the caller begins again
    except (OSError, sqlite3.Error) as error:
        raise _not_writable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return numbers


def _not_writable(path: Path, error: Exception) -> TrainyardError:
    return TrainyardError(
        f"{path.parent}: the catalogue cannot be written there ({error}); free space, or export "
        "TRAINYARD_CACHE=FOLDER to name another place for it"
    )


class _Writer:
    """Brings a catalogue that nobody else has open up to date."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._links = Links(connection)
        self._done: set[str] = set()
        self._manifests = 0

    def renew(self, folders: list[Folder]) -> tuple[int, int]:
        waiting = list(folders)
        while waiting:
            folder = waiting.pop()
            if folder.path not in self._done:
                self._done.add(folder.path)
                waiting += self._renew_folder(folder)
        self._links.renew()
        return len(self._done), self._manifests

    def _renew_folder(self, folder: Folder) -> list[Folder]:
        """Reads a folder again; returns the folders in it that were not known before."""
        changed = _time_of(folder.path)
        try:
            listing = list_folder(folder)
        except FileNotFoundError:
            self._forget(folder.path)
            return []
        except OSError as error:
            self._forget(folder.path)
            self._note_problem(folder.path, folder.path, f"{printable(folder.path)} cannot be read ({error.strerror})")
            self._remember(folder, -1)
            return []
        self._connection.execute("DELETE FROM problems WHERE folder = ?", [folder.path])
        for path, text in listing.problems:
            self._note_problem(path, folder.path, text)
        before = {path for (path,) in self._rows("SELECT path FROM folders WHERE path > ? AND path < ?", folder.path)}
        present = {each.path for each in listing.folders}
        for gone in {path for path in before if "/" not in path[len(folder.path) + 1 :]} - present:
            self._forget(gone)
        self._read_manifests(folder, listing.manifests)
        if folder.kind == "record":
            self._read_record(folder)
        still_changing = changed is None or abs(time.time_ns() - changed) < _STILL_CHANGING_NANOSECONDS
        self._remember(folder, -1 if still_changing else changed or -1)
        return [each for each in listing.folders if each.path not in before]

    def _rows(self, query: str, folder: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, beneath(folder)).fetchall()

    def _remember(self, folder: Folder, changed: int) -> None:
        row = (folder.path, folder.kind, folder.run, folder.depth, changed)
        self._connection.execute("REPLACE INTO folders VALUES (?, ?, ?, ?, ?)", row)

    def _forget(self, path: str) -> None:
        """Everything at and beneath a folder."""
        inside = [path, *beneath(path)]
        for table, column in (("folders", "path"), ("problems", "folder")):
            self._connection.execute(f"DELETE FROM {table} WHERE {column} = ? OR {column} > ? AND {column} < ?", inside)
        gone = self._connection.execute(
            "SELECT number FROM artefacts WHERE folder = ? OR folder > ? AND folder < ?", inside
        ).fetchall()
        self._drop(number for (number,) in gone)
        if Path(path).name in RECORDS:
            self._clear_record(Path(path).name, Path(path).parent.name)

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._links.changed(number)
            self._connection.execute("DELETE FROM parents WHERE child = ?", [number])
            self._connection.execute("DELETE FROM artefacts WHERE number = ?", [number])

    def _read_manifests(self, folder: Folder, manifests: list[str]) -> None:
        query = "SELECT manifest, number, file_size, file_time FROM artefacts WHERE folder = ?"
        before = {row[0]: row[1:] for row in self._connection.execute(query, [folder.path])}
        for manifest in manifests:
            number, *stamp = before.pop(manifest, (None, None, None))
            try:
                status = Path(manifest).stat()
                if [status.st_size, status.st_mtime_ns] == stamp:
                    continue
                self._manifests += 1
                artefact = None if _is_spoilt(Path(manifest).parent) else read_artefact(Path(manifest), folder.run)
            except (FileNotFoundError, Missing):
                artefact = None  # a folder without a manifest is no artefact (yet)
            except (TrainyardError, OSError) as error:
                artefact = None
                self._note_problem(manifest, folder.path, printable(error))
            if number is not None:
                self._drop([number])
            if artefact is not None:
                self._insert(artefact, folder.path, status)
        self._drop(number for number, *_ in before.values())

    def _insert(self, artefact: Artefact, folder: str, status: os.stat_result) -> None:
        values = {column: getattr(artefact, column) for column in COLUMNS}
        values |= {"manifest": str(artefact.manifest), "metrics": json.dumps(artefact.metrics)}
        values["parts"] = json.dumps(artefact.parts) if artefact.parts else None
        values |= {"folder": folder, "file_size": status.st_size, "file_time": status.st_mtime_ns}
        values["way"] = self._links.way(artefact.way)
        marks = ", ".join("?" for _ in values)
        row = self._connection.execute(
            f"INSERT INTO artefacts({', '.join(values)}) VALUES ({marks})", list(values.values())
        )
        pairs = [(parent, row.lastrowid) for parent in dict.fromkeys(artefact.parents)]
        self._connection.executemany("INSERT INTO parents VALUES (?, ?, 1)", pairs)
        self._links.changed(row.lastrowid)

    def _read_record(self, folder: Folder) -> None:
        assert folder.run is not None
        path = Path(folder.path)
        self._clear_record(path.name, folder.run)
        try:
            if path.name == COPIES:
                rows = [
                    (folder.run, copy.id, copy.of, copy.name, copy.location, copy.size, copy.whole, copy.verified,
                     copy.how, copy.problem, copy.number)
                    for copy in read_copies(path.parent)
                ]  # fmt: skip
                self._connection.executemany("INSERT INTO copies VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
            else:
                annotations, problems = scan_annotations(path.parent)
                said = [(folder.run, *row) for row in _annotation_rows(standing_of(annotations))]
                self._connection.executemany("INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?)", said)
                for number, problem in enumerate(problems):
                    self._note_problem(f"{folder.path}/{number}", folder.path, problem)
        except TrainyardError as error:
            self._note_problem(folder.path, folder.path, str(error))

    def _clear_record(self, name: str, run: str) -> None:
        assert name in RECORDS  # the names of folders and tables
        self._connection.execute(f"DELETE FROM {name} WHERE run = ?", [run])

    def _note_problem(self, path: str, folder: str, text: str) -> None:
        self._connection.execute("REPLACE INTO problems VALUES (?, ?, ?)", [path, folder, text])


def _is_spoilt(folder: Path) -> bool:
    """A damaged folder whose step was saved again is no artefact; one that was left behind whole is."""
    return is_replaced(folder.name) and folder.parent.name != EVALS and is_spoilt(folder)


def _annotation_rows(standing: Standing) -> list[tuple[str, str | None, str, str | None, float | None]]:
    rows: list[tuple[str, str | None, str, str | None, float | None]] = [
        ("note", note.artefact, note.text, None, None) for note in standing.notes
    ]
    rows += [("tag", None, tag, None, None) for tag in standing.tags]
    rows += [("gold", artefact, each.text, each.metric, each.value) for artefact, each in standing.gold.items()]
    return rows + ([("deprecated", None, standing.deprecated.text, None, None)] if standing.deprecated else [])
