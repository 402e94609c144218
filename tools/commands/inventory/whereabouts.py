"""Where copies lie, whether each was compared, and when; and a look at them now."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.inventory.artefact import Artefact, files_folder
from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder, now, read_copies
from megatron_patches.artefacts.inventory.names import resolve_artefact, resolve_run
from megatron_patches.artefacts.inventory.verification import verify_artefact
from megatron_patches.artefacts.location import parse_location, run_location
from megatron_patches.artefacts.marks import damage_of, verification_of
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.store import joined
from megatron_patches.artefacts.storage.transfer import check_artefact
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from tools.run_views.views import Inventory


@dataclass(frozen=True)
class KnownCopy:
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
    record: Copy | None = None
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
            for key, value in asdict(replace(self, record=None, artefact=None)).items()
            if key not in ("record", "artefact")
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


def copies_of(inventory: Inventory, what: str) -> tuple[list[KnownCopy], list[str]]:
    """Every copy of an artefact, or of all artefacts of a run; of a published run what its owners declared. Then a
    sentence for each record that cannot be read.

    Raises:
        TrainyardError: nothing is known of it, or several may be meant.
    """
    published = {run.name: run for group in inventory.published for run in group.runs}
    if what in published and what not in inventory.catalogue.run_names():
        return [
            KnownCopy(what, "", f"{each.at}{' [truncated]' if each.truncated else ''}", True, 0, None, "declared")
            for each in published[what].locations
        ], []
    artefacts = _artefacts(inventory, what)
    runs = list(dict.fromkeys(each.run for each in artefacts if each.run))
    if not artefacts and what in inventory.catalogue.run_names():
        runs = [what]
    problems = [problem for run in runs for problem in inventory.catalogue.problems(inventory.runs / run)]
    found = [copy for each in artefacts if (copy := _here(each, problems)) is not None]
    copies: dict[str, list[Copy]] = {}
    for run in runs:
        try:
            copies[run] = read_copies(inventory.runs / run)
        except TrainyardError as error:
            problems.append(str(error))
    problems = list(dict.fromkeys(problems))
    for artefact in {each.id: each for each in artefacts}.values():
        found += [
            _recorded(artefact, copy)
            for copy in copies.get(artefact.run or "", [])
            if artefact.id in (copy.id, copy.of)
        ]
    return found, problems


def check_copies(inventory: Inventory, found_copies: list[KnownCopy]) -> list[KnownCopy]:
    """Looks at every copy now: hashes where a storage states them, else by reading; what is found is recorded."""
    recorders: dict[str, CopyRecorder] = {}
    checked = []
    for copy in found_copies:
        problems = _check(inventory, copy)
        found = replace(
            copy, problem="; ".join(problems) or None, verified=copy.verified if problems else now(), how="read whole"
        )
        checked.append(found)
        if copy.record is not None and copy.artefact is not None and copy.artefact.run:
            run = inventory.runs / copy.artefact.run
            recorder = recorders.setdefault(copy.artefact.run, CopyRecorder(run))
            recorder.record(replace(copy.record, verified=found.verified, how=found.how, problem=found.problem))
    return checked


def all_locations(inventory: Inventory) -> tuple[list[KnownLocation], list[str]]:
    """Every location that holds a copy, that a run's YAML names, or that was declared for a published run. Then a
    sentence for each thing that cannot be read."""
    problems = inventory.problems()
    rows = inventory.catalogue.rows(
        "SELECT location, count(*), sum(size), max(verified) FROM copies WHERE problem IS NULL GROUP BY location"
    )
    found = {row[0]: KnownLocation(row[0], row[1], row[2], row[3], "") for row in rows}
    for name, file in inventory.files.items():
        for address in _declared(file, name, problems):
            known = found.get(address, KnownLocation(address, 0, 0, None, ""))
            found[address] = replace(known, declared_by=name)
    for group in inventory.published:
        for run in group.runs:
            for each in run.locations:
                address = f"{each.at}{' [truncated]' if each.truncated else ''}"
                known = found.get(address, KnownLocation(address, 0, 0, None, ""))
                runs = ", ".join(part for part in (known.declared_by, run.name) if part)
                found[address] = replace(known, declared_by=runs)
    return sorted(found.values(), key=lambda each: each.location), problems


def _declared(file: Path, run: str, problems: list[str]) -> list[str]:
    """The addresses that a run's YAML names, as far as it can be read."""
    try:
        storage = read_yaml(file).get("storage")
        named = storage.get("locations") if isinstance(storage, dict) else None
        return [
            str(run_location(str(each["to"]), run))
            for each in (named if isinstance(named, list) else [])
            if isinstance(each, dict) and "to" in each
        ]
    except TrainyardError as error:
        problems.append(f"{printable(file)}: {error}")
        return []


def _artefacts(inventory: Inventory, what: str) -> list[Artefact]:
    names = inventory.catalogue.run_names()
    if any(what in name for name in names):
        run = resolve_run(what, names)
        return inventory.catalogue.artefacts("run = ? AND kind != 'run'", [run], "ORDER BY kind, step, content")
    artefact = resolve_artefact(what, inventory.catalogue)
    return inventory.catalogue.artefacts("id = ?", [artefact.id])


def _here(artefact: Artefact, problems: list[str]) -> KnownCopy | None:
    """The copy that lies on this machine; None where only others are left."""
    try:
        folder = files_folder(artefact.folder)
        if folder is None:
            return None
        verified, damage = verification_of(folder), damage_of(folder)
    except TrainyardError as error:
        problems.append(str(error))
        return None
    is_here = folder.is_dir()
    problem = (damage.reason if damage else None) if is_here else f"{folder} is gone"
    return KnownCopy(
        artefact.name, artefact.id, f"file://{folder}", True, artefact.size, verified.date if verified else None,
        verified.reason if verified else "", problem, artefact=artefact,
    )  # fmt: skip


def _recorded(artefact: Artefact, copy: Copy) -> KnownCopy:
    return KnownCopy(
        artefact.name, copy.id, joined(copy.location, copy.name), copy.whole or copy.id == artefact.id, copy.size,
        copy.verified, copy.how, copy.problem, copy, artefact,
    )  # fmt: skip


def _check(inventory: Inventory, copy: KnownCopy) -> list[str]:
    if copy.record is None:
        if copy.artefact is None:
            return ["declared by its owners; nobody here can look at it"]
        return verify_artefact(inventory.catalogue, copy.artefact).problems
    try:
        store = open_store(parse_location(copy.record.location))
        return check_artefact(store, copy.record.name, copy.record.id)
    except TrainyardError as error:
        return [str(error)]
