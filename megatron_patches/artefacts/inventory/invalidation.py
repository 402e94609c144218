"""Marking an artefact, and all that came from it, invalid; and taking that back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from megatron_patches.artefacts.evaluations.sealing import mark
from megatron_patches.artefacts.evaluations.shelf import is_evaluation_name
from megatron_patches.artefacts.folders import checkpoint_name, name_before
from megatron_patches.artefacts.inventory.artefact import Artefact, read_artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.lineage import ancestors, descendants, with_id
from megatron_patches.artefacts.manifest import MANIFEST, Status, announce_change, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import EVALS
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.credentials import refuse_credentials
from megatron_patches.foreign.printable import printable


@dataclass(frozen=True)
class Marked:
    """What was rewritten."""

    changed: list[Artefact]
    unchanged: list[str]
    """a sentence for each artefact that stays as it was, and why"""


def invalidate(catalogue: Catalogue, artefact: Artefact, reason: str) -> Marked:
    """Rewrites the status of an artefact and its descendants; content and ids stay. A descendant that is invalid for
    a reason of its own keeps that.

    Raises:
        TrainyardError: a manifest was edited, or the lineage comes back to itself; nothing is changed then.
    """
    if not reason.strip():
        raise TrainyardError("say why: --because TEXT; whoever wants to use the artefact will read it")
    refuse_credentials(reason, "the reason (--because)")
    reason = printable(reason)  # a command line may hold bytes that no file of UTF-8 can
    beneath = descendants(catalogue, artefact)
    status = Status(state="invalid", reason=reason, date=_now(), cause=artefact.id)
    inherited = status.model_copy(update={"reason": f"came from {artefact.name} ({artefact.id[:12]}): {reason}"})
    changes = [(each, status) for each in _copies_here(catalogue, [artefact.id])]
    unchanged = []
    for each in _copies_here(catalogue, [relative.id for relative in beneath]):
        if each.state == "invalid":
            unchanged.append(f"{each.name} is invalid already: {each.reason}")
        else:
            changes.append((each, inherited))
    changed = _rewrite(changes)
    late = [(each, inherited) for each in _made_meanwhile(changed, lambda each: each.state == "valid")]
    return Marked(changed + _rewrite(late), unchanged)


def revalidate(catalogue: Catalogue, artefact: Artefact) -> Marked:
    """Takes `invalidate` back: the artefact is valid again, and so is what was marked with it, unless another of its
    ancestors is invalid.

    Raises:
        Refused: it is not invalid, or only because of another artefact; the message names that one.
    """
    if artefact.state != "invalid":
        raise Refused(f"{artefact.name} ({artefact.id[:12]}) is not marked invalid")
    if artefact.cause not in (None, artefact.id):
        raise Refused(
            f"{artefact.name} is invalid because of {str(artefact.cause)[:12]} ({artefact.reason}); revalidate that one"
        )
    beneath = descendants(catalogue, artefact)
    freely = Status(date=_now())  # dated, so that a copy elsewhere that still has the mark is seen to be the older
    changes = []
    freed: set[str] = set()
    unchanged = []
    marked_with_it = (each for each in _copies_here(catalogue, [relative.id for relative in beneath]))
    for each in [
        *_copies_here(catalogue, [artefact.id]), *(each for each in marked_with_it if each.cause == artefact.id)
    ]:  # fmt: skip
        faults = [
            above.artefact
            for above in ancestors(catalogue, each)
            if above.artefact and above.artefact.state == "invalid" and above.id not in freed
        ]
        roots = [above for above in faults if above.cause in (None, above.id)]
        if roots:
            other = roots[0]
            reason = f"came from {other.name} ({other.id[:12]}): {other.reason}"
            changes.append((each, Status(state="invalid", reason=reason, date=_now(), cause=other.id)))
            unchanged.append(f"{each.name} stays invalid: {reason}")
        else:
            freed.add(each.id)
            changes.append((each, freely))
    changed = [each for each in _rewrite(changes) if each.id in freed]
    late = _made_meanwhile(changed, lambda each: each.cause == artefact.id)
    return Marked(changed + _rewrite([(each, freely) for each in late]), unchanged)


def _copies_here(catalogue: Catalogue, ids: list[str]) -> Iterator[Artefact]:
    known = with_id(catalogue, ids)
    for each in ids:
        yield from known.get(each, [])


def _made_meanwhile(marked: list[Artefact], to_mark: Callable[[Artefact], bool]) -> list[Artefact]:
    """Evaluations of checkpoints that were just marked, sealed after the catalogue was renewed: whoever seals one looks
    at its checkpoint only after that.
    """
    found = []
    for checkpoint in marked:
        if checkpoint.kind != "checkpoint" or checkpoint.step is None:
            continue
        folder = checkpoint.folder.parents[1] / EVALS / checkpoint_name(checkpoint.step)
        try:
            evaluation = read_artefact(folder / MANIFEST, checkpoint.run)
        except Missing:
            continue
        if checkpoint.id in evaluation.parents and to_mark(evaluation):
            found.append(evaluation)
    return found


def _rewrite(changes: list[tuple[Artefact, Status]]) -> list[Artefact]:
    for artefact, _ in changes:
        read_manifest(artefact.manifest)  # before anything is changed
    for artefact, status in changes:
        if _grows(artefact):
            own = status.model_copy(update={"cause": None}) if status.cause == artefact.id else status
            mark(artefact.folder, own)
        else:
            manifest = read_manifest(artefact.manifest)
            write_manifest(artefact.manifest, manifest.model_copy(update={"status": status}))
            announce_change(artefact.manifest)
    return [artefact for artefact, _ in changes]


def _grows(artefact: Artefact) -> bool:
    """Whether it is the evaluation of a step, whose manifest others may be writing."""
    shelf, name = artefact.folder.parent.name, name_before(artefact.folder.name)
    return artefact.kind == "evaluation" and shelf == EVALS and is_evaluation_name(name)


def _now() -> str:
    """UTC, to the microsecond: of two words within one second, at two places, the later counts."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
