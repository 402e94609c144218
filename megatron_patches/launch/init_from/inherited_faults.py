"""Whether a checkpoint that a run is to begin from came from something that is marked invalid. Torch-free."""

from collections.abc import Iterator

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue, open_catalogue
from megatron_patches.artefacts.inventory.lineage import ancestors, faulty_ids, with_id
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.foreign.printable import shortened

_OF_DATA = ("dataset", "tokenizer")


def fault_problems(manifest: Manifest, allow_fault_of_data: bool) -> Iterator[str]:
    """What is marked invalid of all that it came from, as far as manifests are here.

    Args:
        allow_fault_of_data: `data.allow_invalid`: pass over what is marked because of a dataset or tokenizer.
    """
    with open_catalogue() as catalogue:
        known = [each for found in with_id(catalogue, [manifest.id, *manifest.parents]).values() for each in found[:1]]
        faulty = faulty_ids(catalogue)
        above = [each for each in known if each.id in faulty]
        culprits = {each.id: each for start in above for each in _invalid_above(catalogue, start)}
        of_data = {each.id for each in culprits.values() if each.kind in _OF_DATA}
        for culprit in culprits.values():
            if culprit.cause != culprit.id and culprit.cause in culprits:
                continue  # told with what it was marked for
            if allow_fault_of_data and (culprit.id in of_data or culprit.cause in of_data):
                continue
            yield (
                f"it came from {culprit.name} ({culprit.kind} {culprit.id[:12]}), which is marked invalid: "
                f"{shortened(culprit.reason, 300)}. Name another checkpoint, or take the mark back: tools/inventory "
                f"revalidate {culprit.id[:12]}"
            )


def _invalid_above(catalogue: Catalogue, start: Artefact) -> list[Artefact]:
    """Itself and what it came from, where that is marked; the nearest first."""
    line = [start, *(each.artefact for each in ancestors(catalogue, start))]
    return [each for each in line if each is not None and each.state != "valid"]
