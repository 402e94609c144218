"""Beginning a run with another checkpoint's weights, together: on any layout, in any precision, every byte that is read
hashed. Nothing else of that checkpoint is taken: neither step nor schedule, moments, counters or order of samples."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import mark_damaged
from megatron_patches.checkpoint.resume import load_together
from megatron_patches.checkpoint.starting_point import InitialWeights
from megatron_patches.errors import Damaged
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.run.config import RunConfig


def load_initial_weights(
    start: InitialWeights, config: RunConfig, pieces: Sequence[StatePiece], groups: ProcessGroups
) -> Manifest:
    """Fill weights and masters of a new run; a stored master goes before the weight that was rounded from it. Rows that
    are not taken (`start.rows`) keep what was drawn.

    Returns:
        The manifest of the checkpoint that they came from.

    Raises:
        Damaged: it is not as it was written, or not the checkpoint that the launch found; the pieces are worth nothing
            then.
        Refused: it lacks elements of a piece.
    """
    folder = Path(start.folder)
    looked = _look(folder, start.id, config.data.allow_invalid) if groups.rank == 0 else None
    manifest, problems = groups.from_rank_0(looked)
    if not problems:
        weights = [piece for piece in pieces if piece.kind in ("weight", "master")]
        problems, _ = load_together(folder, manifest, weights, groups, start.rows)
    if problems:
        if groups.rank == 0 and manifest is not None:
            with suppress(OSError):  # somebody else's folder, or a full disk: the answer is told all the same
                mark_damaged(folder, "; ".join(problems))
        raise Damaged(
            f"{config.name} cannot begin from {start.named}: {'; '.join(problems)}. Nothing was trained; restore it "
            "from a copy, or name another checkpoint in init_from"
        )
    assert manifest is not None
    return manifest


def _look(folder: Path, wanted: str, allow_inherited_fault: bool) -> tuple[Manifest | None, list[str]]:
    """Its manifest, and what is wrong now; it may have been deleted or marked since the launch looked."""
    inspection = inspect(folder, allow_inherited_fault)
    manifest = inspection.manifest
    if manifest is not None and manifest.id != wanted:
        return None, [f"{folder} was replaced since the launch was planned: its id was {wanted}, and is {manifest.id}"]
    return manifest, inspection.problems
