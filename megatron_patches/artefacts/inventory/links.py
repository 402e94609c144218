"""Edges of the lineage that no `parents` names, because what lay between was deleted: from a checkpoint to the nearest
artefact that is here of those that it came from. They are made when a run's folders are read again, beside the edges
that manifests name, so that every question about lineage has one table to ask.
"""

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

_Place = tuple[str, int]
"""id of a run's manifest, and number of a launch"""


class Links:
    """Those of a catalogue that is being renewed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._changed: set[str] = set()
        """what came or went: ids of the runs of checkpoints, and of artefacts that are no run's own"""
        self._alone: set[int] = set()
        """artefacts, by number, that came and are no run's own, such as imports and exports"""

    def way(self, text: str) -> int:
        """The number of a way: all that a launch saves have the same one."""
        found = self._connection.execute("SELECT number FROM ways WHERE text = ?", [text]).fetchone()
        if found:
            return int(found[0])
        number = self._connection.execute("INSERT INTO ways(text) VALUES (?)", [text]).lastrowid
        assert number is not None
        crossed = {each if isinstance(each, str) else each[0] for each in json.loads(text)}
        self._connection.executemany("INSERT INTO crossings VALUES (?, ?)", [(each, number) for each in crossed])
        return number

    def changed(self, number: int | None) -> None:
        """An artefact came, or is about to go."""
        query = "SELECT id, run_id, text FROM artefacts JOIN ways ON ways.number = way WHERE artefacts.number = ?"
        identity, run_id, way = self._connection.execute(query, [number]).fetchone()
        self._changed.add(run_id or identity)
        if number is not None and run_id is None and way != "[]":
            self._alone.add(number)

    def renew(self) -> None:
        """Make the edges again of everything whose nearest ancestor may be another one by now."""
        children = list(self._children())
        places = self._places({run for child in children for run in _runs(child)})
        self._connection.executemany(
            "DELETE FROM parents WHERE child = ? AND NOT told", [(child["number"],) for child in children]
        )
        edges = [(parent, child["number"]) for child in children for parent in self._nearest(child, places)]
        self._connection.executemany("INSERT OR IGNORE INTO parents VALUES (?, ?, 0)", edges)
        self._connection.execute("DELETE FROM ways WHERE NOT EXISTS (SELECT 1 FROM artefacts WHERE way = ways.number)")
        self._connection.execute("DELETE FROM crossings WHERE way NOT IN (SELECT number FROM ways)")

    def _children(self) -> Iterator[dict[str, Any]]:
        columns = ("number", "id", "run_id", "launch", "step", "way")
        query = "SELECT artefacts.number, id, run_id, launch, step, text FROM artefacts JOIN ways ON ways.number = way"
        seen: set[int] = set()
        asked = [("run_id = ?", each) for each in self._changed]
        asked += [("way IN (SELECT way FROM crossings WHERE what = ?)", each) for each in self._changed]
        for condition, value in [*asked, *(("artefacts.number = ?", each) for each in self._alone)]:
            for row in self._connection.execute(f"{query} WHERE {condition}", [value]):
                if row[0] not in seen:
                    seen.add(row[0])
                    child = dict(zip(columns, row, strict=True))
                    yield child | {"way": json.loads(child["way"])}

    def _places(self, runs: Iterable[str]) -> dict[_Place, tuple[list[int], list[list[str]]]]:
        """What is here of each launch: the steps, rising, and the ids of each."""
        found: dict[_Place, dict[int, dict[str, set[str]]]] = {}
        query = (
            "SELECT launch, step, id, parent FROM artefacts LEFT JOIN parents ON child = number AND told "
            "WHERE run_id = ? AND kind = 'checkpoint' AND step IS NOT NULL"
        )
        for run in runs:
            for launch, step, each, parent in self._connection.execute(query, [run]):
                found.setdefault((run, launch), {}).setdefault(step, {}).setdefault(each, set()).add(parent)
        return {
            place: (sorted(steps), [_first(steps[step]) for step in sorted(steps)]) for place, steps in found.items()
        }

    def _nearest(self, child: dict[str, Any], places: dict[_Place, tuple[list[int], list[list[str]]]]) -> list[str]:
        """Ids of the nearest that is here, and of nearer ones that the child's own facts name: they may come back."""
        own = [] if child["run_id"] is None else [[child["run_id"], child["launch"], child["step"]]]
        named: list[str] = []
        for each in [*own, *child["way"]]:
            if isinstance(each, str):
                named.append(each)
                if self._is_here(each):
                    return named
                continue
            run, launch, below = each
            steps, ids = places.get((run, launch), ([], []))
            if index := bisect_left(steps, below):
                return [*named, *(each for each in ids[index - 1] if each != child["id"])]
        return named

    def _is_here(self, artefact: str) -> bool:
        return self._connection.execute("SELECT 1 FROM artefacts WHERE id = ?", [artefact]).fetchone() is not None


def _runs(child: dict[str, Any]) -> set[str]:
    through = {each[0] for each in child["way"] if isinstance(each, list)}
    return through | ({child["run_id"]} if child["run_id"] else set())


def _first(same: dict[str, set[str]]) -> list[str]:
    """What stands for a step: the full checkpoint where it is here, and else what was made from it, such as weights."""
    return [each for each, parents in same.items() if not parents & same.keys()]
