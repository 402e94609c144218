"""The runs that people name to compare them: found, and all there is to know of each read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_patches.artefacts.annotations import scan_annotations, standing_of
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import runs_root
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.names import is_name
from megatron_patches.foreign.printable import printable
from megatron_patches.run.reading import from_settings, load_run
from tools.commands.runs.compare import resolved_values, settings_of
from tools.run_files.catalogue import run_files
from tools.run_files.checkpoint_reference import find_run_directory
from tools.run_views.state import RunState, derive_state, read_queue

MOST = 20
"""runs that are compared at once: each has a letter, and more curves cannot be told apart"""


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs that are compared."""

    letter: str
    name: str
    label: str
    """its name, or its directory or file where several have that name"""
    folder: RunFolder | None
    """None where only its YAML is known"""
    state: RunState | None
    settings: Mapping[str, str] | None
    """every dotted key with its value; None where its configuration cannot be read"""
    planned: int | None
    """steps of the whole run"""
    problems: list[str] = field(default_factory=list)
    """what could not be read, and why"""


def find_compared(names: Sequence[str], checkout: Path) -> list[ComparedRun]:
    """The runs of these names in their order, without what they recorded.

    Each is the name of a run that was launched, a part of it that no other has, or its directory; else the name or the
    path of a YAML, of which only the settings are known.

    Raises:
        TrainyardError: one is not found, may be any of several, is named twice, or its YAML is not in order.
    """
    if len(names) > MOST:
        raise TrainyardError(f"{len(names)} runs are too many to be told apart; name at most {MOST}")
    places = [_find(name, checkout) for name in names]
    seen: dict[Path, str] = {}
    for name, place in zip(names, places, strict=True):
        where = place.resolve()
        if where in seen:
            raise TrainyardError(f"{printable(seen[where])} and {printable(name)} are the same run; name it once")
        seen[where] = name
    stems = [place.stem if _is_yaml(place) else place.name for place in places]
    queue = read_queue()
    found = []
    for number, (place, stem) in enumerate(zip(places, stems, strict=True)):
        label = stem if stems.count(stem) == 1 else str(place)
        letter = chr(ord("a") + number)
        found.append(
            _of_yaml(letter, stem, label, place) if _is_yaml(place) else _of_folder(letter, stem, label, place, queue)
        )
    return found


def _is_yaml(place: Path) -> bool:
    return place.suffix == ".yaml" and place.is_file()


def _find(text: str, checkout: Path) -> Path:
    for path in (Path(text), checkout / text):
        if _is_yaml(path):
            return path
    if os.sep in text:
        folder = find_run_directory(text)
        if not any(is_folder(each) for each in (folder.events, folder.launches)) and not folder.config.is_file():
            raise Missing(f"{printable(folder.path)} is no run's directory: no events/, launches/, config.yaml")
        return folder.path.absolute()
    known = {path.stem: path for path in run_files(checkout)}
    launched = is_name(text) and is_folder(runs_root() / text)
    if text in known and not launched:
        return known[text]
    try:
        return find_run_directory(text).path
    except Missing as error:
        raise Missing(f"{error}; train/ has no {printable(text)}.yaml either") from None


def _of_yaml(letter: str, name: str, label: str, path: Path) -> ComparedRun:
    config = load_run(path)
    return ComparedRun(letter, name, label, None, None, resolved_values(config), config.timetable.steps)


def _of_folder(letter: str, name: str, label: str, path: Path, queue: dict[str, str]) -> ComparedRun:
    folder = RunFolder(path)
    annotations, problems = scan_annotations(path)
    state = derive_state(path, standing_of(annotations), queue, problems=problems)
    settings, planned = _configuration(folder, problems)
    return ComparedRun(letter, name, label, folder, state, settings, planned, problems)


def _configuration(folder: RunFolder, problems: list[str]) -> tuple[dict[str, str] | None, int | None]:
    """Settings and planned steps of the latest launch; what an older version wrote is taken as it stands."""
    try:
        written = read_yaml(folder.config)
    except TrainyardError as error:
        problems.append(f"{error}; its settings are left out")
        return None, None
    try:
        config = from_settings(written, str(folder.config))
    except TrainyardError:
        training = written.get("training")
        steps = training.get("steps") if isinstance(training, dict) else None
        return settings_of(written), steps if type(steps) is int else None
    return resolved_values(config), config.timetable.steps
