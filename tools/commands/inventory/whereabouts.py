"""Where copies lie, whether each was compared, and when; and a look at them now."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from megatron_patches.artefacts.inventory.artefact import Artefact, files_folder
from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder, now, read_copies
from megatron_patches.artefacts.inventory.names import resolve_artefact, resolve_run
from megatron_patches.artefacts.inventory.verification import verify_artefact
from megatron_patches.artefacts.location import parse_location, run_location
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.transfer import check_artefact
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError
from tools.run_views.views import Yard


@dataclass(frozen=True)
class Place:
    """One copy of one artefact."""

    name: str
    """run@step"""
    id: str
    location: str
    whole: bool
    size: int
    """bytes"""
    verified: str | None
    """when it was last compared; None where it never was"""
    how: str
    problem: str | None = None
    copy: Copy | None = None
    """the record it was read from; None of what lies here"""
    artefact: Artefact | None = None

    @property
    def standing(self) -> str:
        """Whether it can be relied on, for people."""
        if self.problem:
            return f"NOT WHOLE: {self.problem}"
        return f"{self.verified} ({self.how})" if self.verified else "never"

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            key: value
            for key, value in asdict(replace(self, copy=None, artefact=None)).items()
            if key not in ("copy", "artefact")
        }


@dataclass(frozen=True)
class KnownLocation:
    """A location of several copies."""

    location: str
    copies: int
    size: int
    verified: str | None
    """when any of them was last compared"""
    declared_by: str
    """runs whose YAML names it, or who published it"""

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return asdict(self)


def copies_of(yard: Yard, what: str) -> list[Place]:
    """Every copy of an artefact, or of all artefacts of a run; of a published run what its owners declared.

    Raises:
        TrainyardError: nothing is known of it, or several may be meant.
    """
    published = {run.name: run for group in yard.published for run in group.runs}
    if what in published and what not in yard.catalogue.run_names():
        return [
            Place(what, "", f"{each.at}{' [truncated]' if each.truncated else ''}", True, 0, None, "declared")
            for each in published[what].locations
        ]
    artefacts = _artefacts(yard, what)
    places = [_here(each) for each in artefacts if _has_files_here(each)]
    by_run = {each.run for each in artefacts if each.run}
    copies = {run: read_copies(yard.runs / run) for run in by_run}
    for artefact in {each.id: each for each in artefacts}.values():
        places += [
            _copy_place(artefact, copy)
            for copy in copies.get(artefact.run or "", [])
            if artefact.id in (copy.id, copy.of)
        ]
    return places


def check_copies(yard: Yard, places: list[Place]) -> list[Place]:
    """Looks at every copy now: hashes where a storage states them, else by reading; what is found is recorded."""
    recorders: dict[str, CopyRecorder] = {}
    checked = []
    for place in places:
        problems = _check(yard, place)
        found = replace(
            place, problem="; ".join(problems) or None, verified=place.verified if problems else now(), how="read whole"
        )
        checked.append(found)
        if place.copy is not None and place.artefact is not None and place.artefact.run:
            run = yard.runs / place.artefact.run
            recorder = recorders.setdefault(place.artefact.run, CopyRecorder(run))
            recorder.record(replace(place.copy, verified=found.verified, how=found.how, problem=found.problem))
    return checked


def all_locations(yard: Yard) -> list[KnownLocation]:
    """Every location that holds a copy, that a run's YAML names, or that was declared for a published run."""
    rows = yard.catalogue.rows(
        "SELECT location, count(*), sum(size), max(verified) FROM copies WHERE problem IS NULL GROUP BY location"
    )
    found = {row[0]: KnownLocation(row[0], row[1], row[2], row[3], "") for row in rows}
    for name, file in yard.files.items():
        for location in (read_yaml(file).get("storage") or {}).get("locations") or []:
            address = str(run_location(str(location["to"]), name))
            known = found.get(address, KnownLocation(address, 0, 0, None, ""))
            found[address] = replace(known, declared_by=name)
    for group in yard.published:
        for run in group.runs:
            for each in run.locations:
                address = f"{each.at}{' [truncated]' if each.truncated else ''}"
                known = found.get(address, KnownLocation(address, 0, 0, None, ""))
                runs = ", ".join(part for part in (known.declared_by, run.name) if part)
                found[address] = replace(known, declared_by=runs)
    return sorted(found.values(), key=lambda each: each.location)


def _artefacts(yard: Yard, what: str) -> list[Artefact]:
    names = yard.catalogue.run_names()
    if any(what in name for name in names):
        run = resolve_run(what, names)
        return yard.catalogue.artefacts("run = ? AND kind != 'run'", [run], "ORDER BY kind, step, content")
    artefact = resolve_artefact(what, yard.catalogue)
    return yard.catalogue.artefacts("id = ?", [artefact.id])


def _has_files_here(artefact: Artefact) -> bool:
    return artefact.whereabouts == "here" or files_folder(artefact.folder) is not None


def _here(artefact: Artefact) -> Place:
    folder = files_folder(artefact.folder)
    gone = None if folder and folder.is_dir() else f"{folder} is gone"
    return Place(artefact.name, artefact.id, f"file://{folder}", True, artefact.size, None, "", gone, artefact=artefact)


def _copy_place(artefact: Artefact, copy: Copy) -> Place:
    return Place(
        artefact.name, copy.id, f"{copy.location}/{copy.name}", copy.whole or copy.id == artefact.id, copy.size,
        copy.verified, copy.how, copy.problem, copy, artefact,
    )  # fmt: skip


def _check(yard: Yard, place: Place) -> list[str]:
    if place.copy is None:
        if place.artefact is None:
            return ["declared by its owners; nobody here can look at it"]
        return verify_artefact(yard.catalogue, place.artefact).problems
    store = open_store(parse_location(place.copy.location))
    try:
        return check_artefact(store, place.copy.name, place.copy.id)
    except TrainyardError as error:
        return [str(error)]
