"""A checkpoint's weights on one rank: its slices of the layers of its pipeline stage, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.batch.fields import ModelInputs
from megatron_patches.checkpoint.load import DamagedCheckpoint, load_alone
from megatron_patches.checkpoint.starting_point import TakenRows
from megatron_patches.generation.evaluated_run import at_length, laid_out, taken_rows
from megatron_patches.generation.model_on_rank import ModelOnRank, Readings
from megatron_patches.models.blueprint import Blueprint, draw_up
from megatron_patches.models.build import PlainModel, canonical_parameters, of_this_stage
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import info_of
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved


@dataclass(frozen=True)
class LoadOrder:
    """What all ranks load."""

    folder: Path
    """of the checkpoint"""
    known_ids: int
    """ids that stand for text"""
    length: int | None
    """`data.sequence_length` in place of the run's own"""


def described(folder: Path) -> tuple[Manifest, RunConfig]:
    """What a checkpoint says of itself.

    Raises:
        DamagedCheckpoint: it is not whole.
    """
    inspection = inspect(folder)
    if inspection.manifest is None or inspection.problems:
        raise DamagedCheckpoint("; ".join(inspection.problems))
    return inspection.manifest, load_resolved(folder / CONFIG)


def load_on_rank(order: LoadOrder, groups: ProcessGroups) -> ModelOnRank:
    """This rank's part of a checkpoint's model.

    Raises:
        DamagedCheckpoint, Refused: as `load_weights`.
    """
    manifest, trained = described(order.folder)
    config = laid_out(at_length(trained, order.length), groups.layout.tensor, groups.layout.pipeline)
    groups = replace(groups, dtype=PRECISIONS[config.training.precision])
    objective = config.objective
    texts = objective.prompt_inputs or objective.text_inputs
    readings = Readings(objective.inputs, texts, config.architecture.keeps_keys)
    model = PlainModel(_blueprint(config, objective.prompt_inputs or objective.inputs, groups))
    load_weights(model, order.folder, manifest, taken_rows(trained, config))
    model = model.to(groups.device).eval()

    def read_as(inputs: ModelInputs) -> PlainModel:
        return model.reading(_blueprint(config, inputs, groups))

    return ModelOnRank(model, read_as, readings, groups, order.known_ids)


def load_weights(model: PlainModel, folder: Path, manifest: Manifest, rows: Mapping[str, TakenRows]) -> None:
    """Fill a model's parameters with a checkpoint's, whatever layout saved it.

    Args:
        rows: tables of which not all rows are taken, by name.

    Raises:
        DamagedCheckpoint: a file is not as it was written.
        Refused: the checkpoint is another model's.
    """
    pieces = [
        StatePiece(name, "weight", info_of(parameter).slice, 0, parameter.detach().view(-1), written_here=False)
        for name, parameter in canonical_parameters(model).items()
    ]
    load_alone(folder, manifest, pieces, rows or None)


def _blueprint(config: RunConfig, inputs: ModelInputs, groups: ProcessGroups) -> Blueprint:
    """Of this rank's stage; its weights are not drawn, since all of them are loaded."""
    randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
    return of_this_stage(draw_up(config.model, config.lengths, inputs, groups, randomness, seed=None), config.stages)
