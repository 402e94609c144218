"""From a location back into a folder: whole artefacts, or the weights of checkpoints alone, and logs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_patches.artefacts.folders import parse_checkpoint_name, weights_name
from megatron_patches.artefacts.inside import refuse_link_of_others, refuse_outside
from megatron_patches.artefacts.inventory.search import number_range
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.storage.fetch import fetch_artefact
from megatron_patches.artefacts.storage.loose import INDEX, fetch_loose
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.artefacts.storage.store import NotThere, Store
from megatron_patches.artefacts.storage.transfer import Options, TransferOutcome, remote_manifest
from megatron_patches.artefacts.unfinished import unfinished_kind
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.names import is_name
from megatron_patches.foreign.printable import shortened
from tools.commands.sync_to_hub.evaluations import fetch_evaluation, is_of_a_step
from tools.commands.sync_to_hub.items import LOOSE, Choice
from tools.commands.sync_to_hub.run import Line


@dataclass
class Pull:
    """What is to be brought here."""

    location: Location
    run_folder: Path
    what: Sequence[str] = ("checkpoints",)
    weights_only: bool = False
    steps: str = ""
    allow_invalid: bool = False
    dry_run: bool = False
    options: Options = field(default_factory=Options)
    retries: Retries = field(default_factory=Retries)


def pull(task: Pull) -> Iterator[Line]:
    """Fetches everything that is chosen, each artefact whole or not at all.

    Raises:
        NotThere: nothing that is chosen lies at the location.
        Refused: the run's folder here is a link that somebody else made.
        TrainyardError: the location cannot be used.
    """
    if task.steps:
        Choice(steps=task.steps)  # what is not formed as it must be is refused before the location is asked
    refuse_link_of_others(task.run_folder)
    store = open_store(task.location, task.retries)
    prefixes, odd = _prefixes(store, task)
    loose = [name for part in task.what for name in LOOSE.get(part, ()) if store.read(f"{name}/{INDEX}") is not None]
    for problem in odd:
        yield Line(task.run_folder.name, "", str(task.location), "passed over", problem=problem)
    if not prefixes and not loose and not odd:
        present = sorted({"/".join(path.split("/")[:2]) for path in store.entries("") if "/" in path})
        offer = (
            f"; it holds {', '.join(map(shortened, present[:8]))}" if present else "; it is empty, or does not exist"
        )
        raise NotThere(f"{task.location} holds nothing of what was asked for{offer}")
    for prefix in prefixes:
        try:
            yield _line(task, prefix, _fetch(store, prefix, task))
        except (TrainyardError, OSError) as error:
            yield Line(task.run_folder.name, prefix, str(task.location), "failed", problem=str(error))
    for name in loose:
        try:
            yield _line(task, name, _fetch_loose(store, name, task))
        except (TrainyardError, OSError) as error:
            yield Line(task.run_folder.name, name, str(task.location), "failed", problem=str(error))


def _prefixes(store: Store, task: Pull) -> tuple[list[str], list[str]]:
    """The artefacts that are chosen, and a sentence for each whose name cannot be one here."""
    found, odd = [], []
    for part in task.what:
        if part in ("checkpoints", "evals", "exports"):
            listed = {path.split("/")[0] for path in store.entries(part) if path.endswith(f"/{MANIFEST}")}
            names = {name for name in listed if is_name(name) and unfinished_kind(name) is None}
            odd += [
                f"{task.location}/{part} lists '{shortened(name)}', which cannot be the name of an artefact"
                for name in sorted(listed - names)
                if unfinished_kind(name) is None
            ]
            found += [f"{part}/{name}" for name in sorted(names) if part != "checkpoints" or _fits(name, names, task)]
    return found, odd


def _fits(name: str, names: set[str], task: Pull) -> bool:
    """Of a step the whole checkpoint is enough, unless its weights lie there by themselves and no more is wanted."""
    found = parse_checkpoint_name(name)
    if task.steps:
        ranges = [number_range(part, "--steps") for part in task.steps.split(",")]
        if found is None or not any(first <= found.step <= last for first, last in ranges):
            return False
    weights = weights_name(name)
    if task.weights_only:
        return name == weights or weights not in names
    return found is None or found.content == "full" or found.with_content("full") not in names


def _fetch(store: Store, prefix: str, task: Pull) -> TransferOutcome:
    manifest = remote_manifest(store, prefix)
    if manifest is None:
        raise NotThere(f"{task.location}/{prefix} has no manifest: it is not whole, or is being written")
    if manifest.status.state == "invalid" and not task.allow_invalid:
        raise TrainyardError(
            f"{task.location}/{prefix} is invalid since {manifest.status.date}: "
            f"{shortened(manifest.status.reason, 500)}. Pull another one, or this one with --allow-invalid"
        )
    part, name = prefix.split("/", 1)
    if task.weights_only and manifest.kind == "checkpoint":
        manifest, name = weights_of(manifest), weights_name(name)
    if task.dry_run:
        return TransferOutcome("fetched", len(manifest.files), sum(file.size for file in manifest.files))
    target = task.run_folder / part / name
    refuse_outside(target.parent, task.run_folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_of_a_step(manifest, name):
        return fetch_evaluation(store, prefix, manifest, target, task.options)
    return fetch_artefact(store, prefix, manifest, target, task.options)


def _fetch_loose(store: Store, name: str, task: Pull) -> TransferOutcome:
    if task.dry_run:
        return TransferOutcome("fetched")
    refuse_outside(task.run_folder / name, task.run_folder)
    return fetch_loose(store, name, task.run_folder / name, task.options)


def _line(task: Pull, name: str, outcome: TransferOutcome) -> Line:
    word = "would be fetched" if task.dry_run and outcome.result == "fetched" else outcome.result
    return Line(task.run_folder.name, name, str(task.location), word, outcome.files, outcome.size)
