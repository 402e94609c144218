"""`tools/inventory adopt`: parents are looked up and refused where they are invalid."""

import sys
from pathlib import Path

from megatron_patches.artefacts.inventory.adoption import Adopted, adopt
from megatron_patches.artefacts.inventory.lineage import faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.checkout import runs_root
from megatron_patches.errors import TrainyardError
from tools.commands.inventory.listing import open_inventory
from tools.run_views.views import Inventory


def adopt_folder(folder: Path, run: str, parents: list[str], step: int | None, allow_invalid: bool) -> list[Adopted]:
    """Adopts every checkpoint in a folder for a run.

    Raises:
        TrainyardError: there is none, its step is unknown, or a parent is unknown or invalid.
    """
    if not run or "/" in run or run.startswith("."):
        raise TrainyardError(f"--run {run}: give the name of a run, such as tr11-176B-ml")
    with open_inventory() as inventory:
        ids = tuple(_parent(inventory, parent, allow_invalid) for parent in parents)
    return adopt(folder, runs_root() / run, ids, step, lambda name: print(f"reading {name}", file=sys.stderr))


def _parent(inventory: Inventory, name: str, allow_invalid: bool) -> str:
    artefact = resolve_artefact(name, inventory.catalogue)
    if artefact.id in faulty_ids(inventory.catalogue) and not allow_invalid:
        reason = artefact.reason or "one of its ancestors is invalid; `tools/inventory show` says which"
        raise TrainyardError(
            f"{artefact.name} ({artefact.id[:12]}) is invalid and cannot be a parent: {reason}. Name another one, or "
            "insist with --allow-invalid"
        )
    return artefact.id
