"""What an artefact came from and what came from it, and how a fault spreads from parent to child."""

from collections.abc import Iterable
from dataclasses import dataclass

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.errors import Damaged

# everything that came from an invalid artefact, whether its own manifest says so or not
FAULTY = """
WITH RECURSIVE faulty(id) AS (
    SELECT id FROM artefacts WHERE state != 'valid'
    UNION
    SELECT artefacts.id FROM faulty
    JOIN parents ON parents.parent = faulty.id JOIN artefacts ON artefacts.number = parents.child)
SELECT id FROM faulty
"""


@dataclass(frozen=True)
class Relative:
    """An artefact above or beneath another one."""

    distance: int
    """1 for parents and children"""
    id: str
    artefact: Artefact | None
    """None where a manifest names a parent that is not here"""


def ancestors(catalogue: Catalogue, artefact: Artefact) -> list[Relative]:
    """What an artefact came from, nearest first.

    Raises:
        Damaged: it came from itself, which only manifests that were edited say.
    """
    return _follow(catalogue, artefact, up=True)


def descendants(catalogue: Catalogue, artefact: Artefact) -> list[Relative]:
    """What came from an artefact, nearest first.

    Raises:
        Damaged: it came from itself, which only manifests that were edited say.
    """
    return _follow(catalogue, artefact, up=False)


def faulty_ids(catalogue: Catalogue) -> set[str]:
    """Ids of all that is invalid or came from something invalid: also what was made after its parent was marked."""
    return {each for (each,) in catalogue.rows(FAULTY)}


def with_id(catalogue: Catalogue, ids: Iterable[str]) -> dict[str, list[Artefact]]:
    """The artefacts of these ids; one id has several where its folder was copied."""
    wanted = list(dict.fromkeys(ids))
    found: dict[str, list[Artefact]] = {}
    for start in range(0, len(wanted), 500):  # SQLite takes a limited number of values
        part = wanted[start : start + 500]
        for artefact in catalogue.artefacts(f"id IN ({','.join('?' * len(part))})", part):
            found.setdefault(artefact.id, []).append(artefact)
    return found


def _follow(catalogue: Catalogue, artefact: Artefact, up: bool) -> list[Relative]:
    found: dict[str, Relative] = {}
    level, distance = [artefact], 0
    while level:
        distance += 1
        ids = _next_ids(catalogue, level, up)
        if artefact.id in ids:
            raise Damaged(
                f"{artefact.name} ({artefact.id[:12]}) is among its own {'ancestors' if up else 'descendants'}: one of "
                f"these manifests was edited: {', '.join(str(each.manifest) for each in level)}. "
                "`tools/inventory verify` finds it; restore it from a copy"
            )
        known = with_id(catalogue, ids)
        fresh = [each for each in ids if each not in found]
        for each in fresh:
            found[each] = Relative(distance, each, known[each][0] if each in known else None)
        level = [known[each][0] for each in fresh if each in known]
    return list(found.values())


def _next_ids(catalogue: Catalogue, level: list[Artefact], up: bool) -> list[str]:
    wanted, by = ("parent", "artefacts.id") if up else ("artefacts.id", "parent")
    found: dict[str, None] = {}
    for start in range(0, len(level), 500):
        part = [each.id for each in level[start : start + 500]]
        rows = catalogue.rows(
            f"SELECT DISTINCT {wanted} FROM parents JOIN artefacts ON artefacts.number = parents.child "
            f"WHERE {by} IN ({','.join('?' * len(part))}) ORDER BY told DESC, run, step",
            part,
        )
        found |= dict.fromkeys(each for (each,) in rows)
    return list(found)
