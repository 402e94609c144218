"""What of a run is to be copied: artefacts by their manifests, and growing folders such as logs file by file."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os.path import lexists
from pathlib import Path

from megatron_patches.artefacts.evaluations.shelf import is_evaluation_name
from megatron_patches.artefacts.folders import is_replaced, name_before, weights_name
from megatron_patches.artefacts.inside import is_inside, refuse_link_of_others
from megatron_patches.artefacts.inventory.artefact import files_folder
from megatron_patches.artefacts.inventory.scan import Folder as ScannedFolder
from megatron_patches.artefacts.inventory.scan import Listing, list_folder
from megatron_patches.artefacts.inventory.search import number_range
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest
from megatron_patches.artefacts.marks import is_pinned
from megatron_patches.artefacts.run_folder import EVALS
from megatron_patches.artefacts.unfinished import unfinished_kind
from megatron_patches.atomic_files import TEMPORARY
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import everything_beneath, is_file, is_folder
from megatron_patches.run.storage_config import LocationConfig
from slurm.heartbeat import HEARTBEAT

PARTS = ("checkpoints", "logs", "tensorboard", "evals", "exports")
LOOSE = {"logs": ("logs", "events", "launches"), "tensorboard": ("tensorboard",), "evals": ("evals",)}
"""folders whose files have no manifest, by the part they belong to"""
_LINK_OUTSIDE = "is a link to what lies elsewhere, and is not sent; put the file itself there"
_NO_FILE = "is neither a file nor a folder, and is not sent; remove it"
_SHELVES = {"checkpoints": ("checkpoints", "elsewhere"), "evals": ("evals",), "exports": ("exports",)}


@dataclass(frozen=True)
class Item:
    """One artefact, or the weights of one, to be copied."""

    name: str
    """its prefix at a location: checkpoints/step-0000001000"""
    folder: Path
    """of its files here"""
    manifest: Manifest
    of: str
    """id of the artefact here"""
    whole: bool
    shelf_folder: Path
    """of its manifest here"""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.manifest.files)


@dataclass(frozen=True)
class Choice:
    """What a command line chooses of a run."""

    what: Sequence[str] = ("checkpoints",)
    weights_only: bool = False
    steps: str = ""
    """1000:5000, or 1000,2000,3000"""
    every: int | None = None
    pattern: str = ""
    """of names such as checkpoints/step-0000001000 or logs/0001.log"""
    policy: LocationConfig | None = None
    """of a run's YAML, in place of weights_only, steps and every"""
    last_step: int | None = None
    """with a policy: the last step of a finished run, which is always kept whole"""
    passed_over: list[str] = field(default_factory=list)
    """filled with a sentence for each artefact that cannot be read"""

    def __post_init__(self) -> None:
        """Raises TrainyardError where the steps are not formed as they must be: that is no fault of an artefact."""
        if self.steps:
            _in_steps(self.steps, 0)


def parse_what(text: str) -> tuple[str, ...]:
    """The parts of a run in a list such as checkpoints,logs.

    Raises:
        TrainyardError: one of them is unknown.
    """
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if unknown := [part for part in parts if part not in PARTS]:
        raise TrainyardError(f"--what {text}: {unknown[0]} is no part of a run; there are {', '.join(PARTS)}")
    if not parts:
        raise TrainyardError(f"--what names nothing; there are {', '.join(PARTS)}")
    return parts


def items_of(run_folder: Path, choice: Choice) -> Iterator[Item]:
    """The artefacts of a run that are chosen, oldest first. Folders that are being written have no manifest, or a name
    that says so, and are not looked at.
    """
    for part in choice.what:
        for shelf in _SHELVES.get(part, ()):
            listing = _listing(run_folder / shelf)
            choice.passed_over.extend(problem for _, problem in listing.problems)
            for folder in _with_manifest(listing):
                try:
                    item = _item(part, folder, choice)
                except TrainyardError as error:
                    choice.passed_over.append(str(error))
                    continue
                if item is not None and _fits(choice.pattern, item.name):
                    yield item


def unsent_manifests(run_folder: Path) -> dict[str, Manifest]:
    """By id, artefacts that `items_of` leaves out: those marked invalid, and those whose files are no longer here;
    evaluations, which have another id with each task that is added, by their names at a location too.
    """
    found: dict[str, Manifest] = {}
    for shelf in {shelf for shelves in _SHELVES.values() for shelf in shelves}:
        for folder in _artefact_folders(run_folder / shelf):
            try:
                manifest = read_manifest(folder / MANIFEST)
                if manifest.status.state == "invalid" or files_folder(folder) is None:
                    found[manifest.id] = manifest
                    if shelf == EVALS:
                        found[f"{EVALS}/{folder.name}"] = manifest
            except TrainyardError:
                continue  # `items_of` names it
    return found


def loose_files(run_folder: Path, choice: Choice) -> dict[str, list[Path]]:
    """Files without a manifest by the folder they lie in. What is none of the run's files, such as a link out of it, a
    linked folder or a pipe, is told.
    """
    found: dict[str, list[Path]] = {}
    for part in choice.what:
        for name in LOOSE.get(part, ()):
            root = run_folder / name
            artefacts = set(_artefact_folders(root)) if part == "evals" else set()
            chosen = [
                path
                for path in everything_beneath(root)
                if not path.name.endswith(TEMPORARY)
                and path.name != HEARTBEAT  # rewritten in place: it says something here and now alone
                and not artefacts & {path, *path.parents}
                and not (part == "evals" and _is_of_evaluations(path.relative_to(root)))
                and _fits(choice.pattern, path.relative_to(run_folder).as_posix())
            ]
            reasons = {path: _why_not_sent(path, root, run_folder) for path in chosen}
            choice.passed_over.extend(f"{path}: {reason}" for path, reason in reasons.items() if reason)
            if files := [path for path in chosen if not reasons[path] and is_file(path)]:
                found[name] = files
    return found


def _is_of_evaluations(path: Path) -> bool:
    """A result that is not sealed yet, one of a checkpoint that was replaced, or a state of here and now."""
    first = path.parts[0]
    return first.startswith(".") or is_evaluation_name(name_before(first)) or unfinished_kind(first) is not None


def _why_not_sent(path: Path, root: Path, run_folder: Path) -> str:
    """Empty for a file of the run, for a folder, and for a link to what is sent under its own name or leads nowhere."""
    if is_file(path):
        return "" if is_inside(path, run_folder) else _LINK_OUTSIDE
    if path.is_symlink():
        return _LINK_OUTSIDE if is_folder(path) and not is_inside(path, root) else ""
    return "" if is_folder(path) or not lexists(path) else _NO_FILE


def _artefact_folders(shelf: Path) -> list[Path]:
    return _with_manifest(_listing(shelf))


def _listing(shelf: Path) -> Listing:
    return list_folder(ScannedFolder(str(shelf), "shelf")) if shelf.is_dir() else Listing()


def _with_manifest(listing: Listing) -> list[Path]:
    folders = [Path(manifest).parent for manifest in listing.manifests if is_file(Path(manifest))]
    return [folder for folder in folders if not is_replaced(folder.name)]


def _item(part: str, folder: Path, choice: Choice) -> Item | None:
    for path in (folder.parent, folder):
        refuse_link_of_others(path)
    if not is_inside(folder / MANIFEST, folder):
        raise TrainyardError(f"{folder / MANIFEST}: {_LINK_OUTSIDE}")
    manifest = read_manifest(folder / MANIFEST)
    files = files_folder(folder)
    if files is None or manifest.status.state == "invalid":
        return None
    if files == folder and (
        outside := [each.path for each in manifest.files if not is_inside(folder / each.path, folder)]
    ):
        raise TrainyardError(f"{folder / outside[0]}: {_LINK_OUTSIDE}")
    name = folder.name
    as_weights = False
    if manifest.kind == "checkpoint":
        wanted = _wanted_as(manifest, folder, choice)
        if wanted is None:
            return None
        as_weights = wanted == "weights"
    copied = weights_of(manifest) if as_weights else manifest
    if as_weights and manifest.facts.get("content") != "weights":
        name = weights_name(name)
        if name != folder.name and (folder.parent / name / MANIFEST).is_file():
            return None  # the run saved this step's weights by themselves: they are what lies under that name
    whole = copied.id == manifest.id
    return Item(f"{part}/{name}", files, copied, manifest.id, whole, folder)


def _wanted_as(manifest: Manifest, folder: Path, choice: Choice) -> str | None:
    """full or weights, or None where the checkpoint is not chosen."""
    step = manifest.facts.get("step")
    step = step if isinstance(step, int) else 0
    if choice.policy is not None:
        return _due_as(choice.policy, step, manifest.facts.get("content") == "weights", folder, choice.last_step)
    if choice.steps and not _in_steps(choice.steps, step):
        return None
    if choice.every and step % choice.every:
        return None
    return "weights" if choice.weights_only else "full"


def _due_as(policy: LocationConfig, step: int, is_weights: bool, folder: Path, last_step: int | None) -> str | None:
    if is_weights:
        return "full" if policy.weights_every is None or step % policy.weights_every == 0 else None
    if policy.full_every is None or step % policy.full_every == 0 or step == last_step:
        return "full"
    if policy.pinned and is_pinned(folder):
        return "full"
    return "weights" if policy.weights_every and step % policy.weights_every == 0 else None


def _in_steps(text: str, step: int) -> bool:
    ranges = [number_range(part, "--steps") for part in text.split(",")]
    return any(first <= step <= last for first, last in ranges)


def _fits(pattern: str, name: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition("/")[2], pattern)
