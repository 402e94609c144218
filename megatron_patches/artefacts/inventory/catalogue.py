"""The catalogue: an SQLite file that says at once what reading every manifest would say.

It is a cache. Each user has a file of their own outside the shared runs, a reader opens it as it is, and a change is
made to a copy that then replaces it by one rename. So nobody waits for a lock, a file that is deleted, cut short or of
another version is made anew, and two processes that renew it at once leave one of two right answers.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.renewal import (
    COLUMNS,
    GOLD_METRICS_OF_ARTEFACT,
    VERSION,
    changed_folders,
    renew,
)
from megatron_patches.artefacts.inventory.scan import Folder, beneath, roots
from megatron_patches.checkout import cache_root, data_root, runs_root
from megatron_patches.errors import TrainyardError

_ATTEMPTS = 20


@dataclass(frozen=True)
class Renewal:
    """What a look at the folders changed."""

    folders: int
    """that were read again"""
    manifests: int
    """that were read again"""
    seconds: float


class Catalogue:
    """What there is under a root of runs and a root of data; `open_catalogue` gives one that is up to date."""

    def __init__(self, connection: sqlite3.Connection, renewal: Renewal) -> None:
        self._connection = connection
        self.renewal = renewal

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        return self._connection.execute(query, tuple(_bindable(value) for value in values)).fetchall()

    def artefacts(self, where: str = "1", values: Iterable[Any] = (), tail: str = "") -> list[Artefact]:
        """The artefacts that a condition on the columns selects; `tail` may order and limit them."""
        columns = ", ".join(f"artefacts.{column}" for column in COLUMNS)
        query = f"SELECT artefacts.number, {columns} FROM artefacts WHERE {where} {tail}"
        found = self.rows(query, values)
        return [self._artefact(row) for row in found]

    def _artefact(self, row: tuple[Any, ...]) -> Artefact:
        known = dict(zip(COLUMNS, row[1:], strict=True))
        parents = self.rows("SELECT parent FROM parents WHERE child = ? AND told", [row[0]])
        gold = self.rows(GOLD_METRICS_OF_ARTEFACT, [known["id"]])
        metrics = {**dict(gold), **json.loads(known["metrics"])}  # what a manifest says was measured counts for more
        known |= {"manifest": Path(known["manifest"]), "metrics": metrics, "parts": json.loads(known["parts"] or "{}")}
        return Artefact(**known, parents=tuple(parent for (parent,) in parents))

    def problems(self, under: Path | None = None) -> list[str]:
        """What could not be read, a sentence each.

        Args:
            under: only in this folder and what lies beneath it.
        """
        if under is None:
            return [text for (text,) in self.rows("SELECT text FROM problems ORDER BY path")]
        inside = "folder = ? OR folder > ? AND folder < ?"
        rows = self.rows(f"SELECT text FROM problems WHERE {inside} ORDER BY path", [str(under), *beneath(str(under))])
        return [text for (text,) in rows]

    def run_names(self) -> list[str]:
        """Runs that have a directory."""
        return [run for (run,) in self.rows("SELECT DISTINCT run FROM folders WHERE kind = 'run' ORDER BY run")]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@contextmanager
def open_catalogue(runs: Path | None = None, data: Path | None = None, thorough: bool = False) -> Iterator[Catalogue]:
    """The catalogue, renewed where folders changed.

    Args:
        thorough: look at every manifest's time and size, not at folders' times alone.

    Raises:
        TrainyardError: the cache's folder cannot be written to.
    """
    runs, data = runs or runs_root(), data or data_root()
    path = catalogue_path(runs, data)
    connection, renewal = _open_renewed(path, roots(runs, data), thorough)
    with closing(connection):
        yield Catalogue(connection, renewal)


def _open_renewed(path: Path, beginnings: list[Folder], thorough: bool) -> tuple[sqlite3.Connection, Renewal]:
    """Others may delete the file at any instant; then it is made anew. An open one stays readable."""
    started = time.perf_counter()
    for _ in range(_ATTEMPTS):
        known = _known_folders(path)
        changed = changed_folders(known, beginnings) if known is not None and not thorough else None
        read, manifests = 0, 0
        try:
            if changed is None or changed:
                read, manifests = renew(path, beginnings, known, changed, thorough)
            connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro&immutable=1", uri=True)
            connection.execute("SELECT count(*) FROM folders")
        except (FileNotFoundError, sqlite3.OperationalError):
            continue
        return connection, Renewal(read, manifests, time.perf_counter() - started)
    raise TrainyardError(
        f"{path} was deleted {_ATTEMPTS} times while it was being opened; find out which program empties the folder, "
        "or export TRAINYARD_CACHE=FOLDER to name another place for it"
    )


def catalogue_path(runs: Path, data: Path) -> Path:
    """Where the catalogue of these roots lies for this user."""
    digest = hashlib.sha256(os.fsencode(f"{runs.absolute()}\n{data.absolute()}")).hexdigest()[:16]
    return cache_root() / f"catalogue-{digest}.sqlite"


def delete_catalogue(runs: Path | None = None, data: Path | None = None) -> None:
    """Forget everything; the next reader makes it anew."""
    catalogue_path(runs or runs_root(), data or data_root()).unlink(missing_ok=True)


def _bindable(value: Any) -> Any:
    """A value that SQLite takes, and that nothing equals where it cannot hold the one that was given."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # a byte of the command line that is not UTF-8
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**63 - 1))
    return value


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _known_folders(path: Path) -> list[tuple[Folder, int]] | None:
    """The folders that were looked at, with their times then; None where there is no catalogue that can be read."""
    try:
        with closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro&immutable=1", uri=True)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                return None
            rows = connection.execute("SELECT path, kind, run, depth, changed FROM folders").fetchall()
    except sqlite3.Error:
        return None
    return [(Folder(path, kind, run, depth), changed) for path, kind, run, depth, changed in rows]
