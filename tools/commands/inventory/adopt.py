"""`tools/inventory adopt`: invalid parents are refused, and checkpoints are compared with their run."""

from collections.abc import Callable
from pathlib import Path

from megatron_patches.artefacts.foreign_formats.formats import ForeignCheckpoint
from megatron_patches.artefacts.foreign_formats.size import misfit_of
from megatron_patches.artefacts.inventory.adoption import Adoption, adopt
from megatron_patches.artefacts.inventory.lineage import faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkout import runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.names import check_name
from tools.commands.inventory.listing import open_inventory
from tools.run_views.views import Inventory
from tools.terminal import remark


def adopt_folder(folder: Path, run: str, parents: list[str], step: int | None, allow_invalid: bool) -> Adoption:
    """Adopts every checkpoint in a folder that is understood, and that can be one of the run, for a run.

    Raises:
        TrainyardError: there is none, its step is unknown, or a parent is unknown or invalid.
    """
    check_name(run, "a run (--run)")
    with open_inventory() as inventory:
        ids = tuple(_parent(inventory, parent, allow_invalid) for parent in parents)
        misfit = _comparison(inventory, run)
    return adopt(folder, runs_root() / run, ids, step, lambda name: remark(f"reading {name}"), misfit)


def _comparison(inventory: Inventory, run: str) -> Callable[[ForeignCheckpoint], str]:
    """Compares checkpoints with the run's configuration, where it has one here."""
    from megatron_patches.run.parameter_count import count_parameters
    from megatron_patches.run.reading import load_resolved, load_run

    resolved = runs_root() / run / CONFIG
    if run not in inventory.files and not resolved.exists():
        return lambda _: ""
    try:
        config = load_run(inventory.files[run]) if run in inventory.files else load_resolved(resolved)
    except TrainyardError as error:
        remark(f"not compared with {run}, whose configuration does not load: {error}", layout=True)
        return lambda _: ""
    expected = count_parameters(config.model, config.lengths).total

    def compare(checkpoint: ForeignCheckpoint) -> str:
        try:
            return misfit_of(checkpoint, run, expected)
        except TrainyardError as error:
            remark(f"{checkpoint.name} is not compared with {run}: {error}")
            return ""

    return compare


def _parent(inventory: Inventory, name: str, allow_invalid: bool) -> str:
    artefact = resolve_artefact(name, inventory.catalogue)
    if artefact.id in faulty_ids(inventory.catalogue) and not allow_invalid:
        reason = artefact.reason or "one of its ancestors is invalid; `tools/inventory show` says which"
        raise TrainyardError(
            f"{artefact.name} ({artefact.id[:12]}) is invalid and cannot be a parent: {reason}. Name another one, or "
            "insist with --allow-invalid"
        )
    return artefact.id
