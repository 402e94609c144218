"""Marking an artefact, and all that came from it, invalid; and taking that back."""

from collections.abc import Iterator
from dataclasses import dataclass

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.copies import now
from megatron_patches.artefacts.inventory.lineage import ancestors, descendants, with_id
from megatron_patches.artefacts.manifest import Status, announce_change, read_manifest, write_manifest
from megatron_patches.errors import Refused, TrainyardError
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
    status = Status(state="invalid", reason=reason, date=now(), cause=artefact.id)
    inherited = status.model_copy(update={"reason": f"came from {artefact.name} ({artefact.id[:12]}): {reason}"})
    changes = [(each, status) for each in _copies_here(catalogue, [artefact.id])]
    unchanged = []
    for each in _copies_here(catalogue, [relative.id for relative in beneath]):
        if each.state == "invalid":
            unchanged.append(f"{each.name} is invalid already: {each.reason}")
        else:
            changes.append((each, inherited))
    return Marked(_rewrite(changes), unchanged)


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
    freely = Status(date=now())  # dated, so that a copy elsewhere that still has the mark is seen to be the older
    changes = [(each, freely) for each in _copies_here(catalogue, [artefact.id])]
    freed = {artefact.id}
    unchanged = []
    for each in _copies_here(catalogue, [relative.id for relative in beneath]):
        if each.cause != artefact.id:
            continue
        faults = [
            above.artefact
            for above in ancestors(catalogue, each)
            if above.artefact and above.artefact.state == "invalid" and above.id not in freed
        ]
        roots = [above for above in faults if above.cause in (None, above.id)]
        if roots:
            other = roots[0]
            reason = f"came from {other.name} ({other.id[:12]}): {other.reason}"
            changes.append((each, Status(state="invalid", reason=reason, date=now(), cause=other.id)))
            unchanged.append(f"{each.name} stays invalid: {reason}")
        else:
            freed.add(each.id)
            changes.append((each, freely))
    marked = _rewrite(changes)
    return Marked([each for each in marked if each.id in freed], unchanged)


def _copies_here(catalogue: Catalogue, ids: list[str]) -> Iterator[Artefact]:
    known = with_id(catalogue, ids)
    for each in ids:
        yield from known.get(each, [])


def _rewrite(changes: list[tuple[Artefact, Status]]) -> list[Artefact]:
    manifests = [(artefact, read_manifest(artefact.manifest), status) for artefact, status in changes]
    for artefact, manifest, status in manifests:
        write_manifest(artefact.manifest, manifest.model_copy(update={"status": status}))
        announce_change(artefact.manifest)
    return [artefact for artefact, _ in changes]
