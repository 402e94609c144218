"""One artefact at the root of a branch of the hub, where `from_pretrained(..., revision=...)` finds its files."""

from dataclasses import dataclass, field
from pathlib import Path

from megatron_patches.artefacts.inside import is_inside
from megatron_patches.artefacts.inventory.artefact import files_folder
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder, now
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.location import Location, revision_location
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest, refuse_invalid
from megatron_patches.artefacts.run_folder import SHELVES
from megatron_patches.artefacts.storage.fetch import fetch_artefact
from megatron_patches.artefacts.storage.hf_branch import ATTRIBUTES
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.artefacts.storage.store import AccessRefused, AnotherArtefact, DamagedCopy, NotThere, Store
from megatron_patches.artefacts.storage.transfer import (
    Options,
    TransferOutcome,
    as_bytes,
    check_artefact,
    remote_manifest,
    send_artefact,
)
from megatron_patches.checkout import runs_root
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.names import is_name
from megatron_patches.foreign.printable import printable, shortened
from tools.commands.sync_to_hub.run import Line

_TOLD = 5


@dataclass(frozen=True)
class _AtRevision:
    """A folder here and a revision there."""

    folder: Path
    """of the artefact; a pull makes it"""
    address: str
    """of the repository; in that of a push {run} stands for the artefact's run"""
    revision: str
    options: Options = field(default_factory=Options)
    retries: Retries = field(default_factory=Retries)
    dry_run: bool = False


@dataclass(frozen=True)
class RevisionPush(_AtRevision):
    """What is to be brought to a revision."""


@dataclass(frozen=True)
class RevisionPull(_AtRevision):
    """What is to be fetched from a revision."""

    allow_invalid: bool = False


def chosen_folder(text: str) -> Path:
    """The folder of an artefact that a command line names: by its path, or as the inventory knows it.

    Raises:
        Missing: there is none, or its files are no longer here.
        TrainyardError: it may be any of several.
    """
    if (Path(text) / MANIFEST).is_file():
        return Path(text).resolve()
    with open_catalogue() as catalogue:
        artefact = resolve_artefact(text, catalogue)
    folder = files_folder(artefact.folder)
    if folder is None:
        raise Missing(f"only copies are left of {artefact.name}; pull one first (`tools/inventory where` names them)")
    return folder


def push_revision(task: RevisionPush) -> Line:
    """Bring the artefact's files to the revision, compare all of them there, and put the copy on record in its run.

    Raises:
        TrainyardError: the artefact, the address or the revision cannot be taken; nothing was sent.
    """
    manifest = _readable(task.folder)
    run = manifest.facts.get("run")
    named = run if isinstance(run, str) and is_name(run) else ""
    location = revision_location(task.address, task.revision, named or None)
    store = open_store(location, task.retries)
    try:
        outcome = _planned(store, manifest) if task.dry_run else _send(store, manifest, task)
        word = f"would be {outcome.result}" if task.dry_run and outcome.result == "sent" else outcome.result
        if not task.dry_run:
            word += _record(task.folder, named, manifest, location)
        return Line(named, task.folder.name, str(location), word, outcome.files, outcome.size)
    except (TrainyardError, OSError) as error:
        return _failure(named, task.folder.name, location, error)


def pull_revision(task: RevisionPull) -> Line:
    """Fetch the artefact at the revision into a new folder, each file hashed.

    Raises:
        TrainyardError: the address or the revision cannot be taken.
    """
    location = revision_location(task.address, task.revision)
    store, name = open_store(location, task.retries), task.folder.name
    try:
        manifest = remote_manifest(store, "")
        if manifest is None:
            raise NotThere(f"{location} has no {MANIFEST}: there is no such revision, or its files are not ours")
        if manifest.status.state == "invalid" and not task.allow_invalid:
            raise Refused(
                f"{location} is invalid since {manifest.status.date}: {shortened(manifest.status.reason, 500)}. Pull "
                "another revision, or this one with --allow-invalid"
            )
        size = sum(file.size for file in manifest.files)
        if task.dry_run:
            return Line("", name, str(location), "would be fetched", len(manifest.files), size)
        outcome = fetch_artefact(store, "", manifest, task.folder.absolute(), task.options)
        return Line("", name, str(location), outcome.result, outcome.files, outcome.size)
    except (TrainyardError, OSError) as error:
        return _failure("", name, location, error)


def _readable(folder: Path) -> Manifest:
    """The manifest of what may be sent: every file lies in the folder itself."""
    manifest = read_manifest(folder / MANIFEST)
    if outside := [file.path for file in manifest.files if not is_inside(folder / file.path, folder)]:
        raise TrainyardError(
            f"{printable(folder / outside[0])} is a link to what lies elsewhere, and is not sent; put the file itself "
            "there"
        )
    return manifest


def _planned(store: Store, manifest: Manifest) -> TransferOutcome:
    entries = store.entries("")
    missing = [file for file in manifest.files if file.path not in entries or entries[file.path].size != file.size]
    return TransferOutcome("sent" if missing else "present", len(missing), sum(file.size for file in missing))


def _send(store: Store, manifest: Manifest, task: RevisionPush) -> TransferOutcome:
    before = remote_manifest(store, "")
    if manifest.status.state == "invalid":
        return _renew_status(store, before, manifest, task.folder)
    _make_room(store, before, manifest, task.options.replace)
    outcome = send_artefact(store, "", manifest, task.folder, task.options)
    if problems := check_artefact(store, "", manifest.id):
        raise DamagedCopy(f"{'; '.join(problems[:_TOLD])}. Push again with --replace: what is damaged is sent again")
    return outcome


def _renew_status(store: Store, before: Manifest | None, manifest: Manifest, folder: Path) -> TransferOutcome:
    """What is invalid is not sent, but a copy must say so too."""
    if before is None or before.id != manifest.id:
        refuse_invalid(manifest, folder / MANIFEST, "take the mark back: tools/inventory revalidate")
    elif before.status != manifest.status and not manifest.status.is_older_than(before.status):
        store.write(MANIFEST, as_bytes(before.model_copy(update={"status": manifest.status})))
        return TransferOutcome("status renewed")
    return TransferOutcome("present")


def _make_room(store: Store, before: Manifest | None, manifest: Manifest, replace: bool) -> None:
    """A file beside those of the artefact may be read in place of them (`model.safetensors` beside shards), so that one
    of the artefact that is replaced goes, and one of anybody else is a reason to end.

    Raises:
        AnotherArtefact: the revision holds another artefact, or files that belong to none.
    """
    ours = {MANIFEST, ATTRIBUTES, *(file.path for file in manifest.files)}
    theirs = {file.path for file in before.files} if before is not None else set()
    others = store.entries("").keys() - ours
    if before is not None and before.id != manifest.id and not replace:
        raise AnotherArtefact(
            f"{store.location} holds another {before.kind} ({before.id[:12]}, made {before.created}), not "
            f"{manifest.id[:12]}; name another --revision, or put this one in its place with --replace"
        )
    if unknown := sorted(others - theirs):
        told = ", ".join(shortened(each, 60) for each in unknown[:_TOLD])
        raise AnotherArtefact(
            f"{store.location} holds {len(unknown):,} files that are none of this artefact's ({told}), and whoever "
            "loads it may be given them; name another --revision, or remove them there"
        )
    if others:
        store.delete(MANIFEST)  # which vouches for them
        for path in sorted(others):
            store.delete(path)


def _record(folder: Path, run: str, manifest: Manifest, location: Location) -> str:
    """Put the copy on record in the artefact's run; what to add to the word of the line where there is none here."""
    home = folder.parents[1] if folder.parent.name in SHELVES else runs_root() / run
    if not run or not home.is_dir():
        return "; no run here to record it in"
    size = sum(file.size for file in manifest.files)
    CopyRecorder(home).record(
        Copy(manifest.id, manifest.id, "", str(location), size, whole=True, verified=now(), how="read whole")
    )
    return ""


def _failure(run: str, name: str, location: Location, error: Exception) -> Line:
    lasting = isinstance(error, (AccessRefused, AnotherArtefact, NotThere))
    return Line(run, name, str(location), "failed", problem=str(error), lasting=lasting)
