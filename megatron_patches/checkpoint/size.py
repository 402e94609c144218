"""How much a run's checkpoints take, on the disk and in the memory of its hosts, from the configuration alone.
Torch-free."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.dtypes import BYTES_OF_PRECISION
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.name_patterns import is_trained
from megatron_patches.run.config import RunConfig
from megatron_patches.run.moment_table import moment_bytes
from megatron_patches.sizes import counted, readable

ALONGSIDE = 1.02  # headers, manifest and configuration, generously: the space is to suffice


@dataclass(frozen=True)
class CheckpointSize:
    """Bytes of tensors in one checkpoint."""

    weights: int
    optimizer: int
    """masters and moments"""

    @property
    def full(self) -> int:
        """All of it."""
        return self.weights + self.optimizer


def checkpoint_size(config: RunConfig) -> CheckpointSize:
    """Of a run's checkpoints, exact but for headers of some kilobytes a file."""
    rows = config.parameters
    width = BYTES_OF_PRECISION[config.training.precision]
    master = 0 if width == BYTES_OF_PRECISION["fp32"] else BYTES_OF_PRECISION["fp32"]
    trained = [row for row in rows if is_trained(config.training, row.name)]
    return CheckpointSize(
        weights=sum(row.elements for row in rows) * width,
        optimizer=sum(row.elements * master + moment_bytes(config, row) for row in trained),
    )


def host_bytes(config: RunConfig, layout: Layout) -> int:
    """About how much memory of its host the largest rank's copy takes: an even share of the largest stage."""
    if not config.checkpoint.asynchronous:
        return 0
    stages = [stage.parameters for stage in config.stages]
    return round(checkpoint_size(config).full * max(stages) / sum(stages) / (layout.tensor * layout.data))


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be made."""
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def space_problems(config: RunConfig, checkpoints: Path, free: int) -> Iterator[str]:
    """What is wrong where the run's next checkpoint takes more than the free bytes."""
    needed = round(checkpoint_size(config).full * ALONGSIDE)
    if free < needed:
        yield (
            f"{checkpoints}: the next checkpoint takes {readable(needed)}, and {readable(free)} are free there. Free "
            "space, name another place for runs (export TRAINYARD_RUNS=FOLDER), or keep fewer checkpoints "
            "(checkpoint.keep_last)"
        )


def describe_checkpoints(config: RunConfig, layout: Layout) -> str:
    """When a run is saved, what that takes, what stays."""
    rules, size = config.checkpoint, checkpoint_size(config)
    parts = [f"{readable(size.full)} every {counted(rules.every_steps, 'step')}"]
    if rules.weights_every_steps:
        parts.append(f"weights alone ({readable(size.weights)}) every {rules.weights_every_steps:,}")
    if rules.ephemeral_every_steps:
        parts.append(f"ephemeral ones every {rules.ephemeral_every_steps:,}")
    if rules.keep_last is None:
        parts.append("all stay")
    else:
        stay = [f"the last {rules.keep_last}"]
        stay += [f"those of every {counted(rules.keep_every_steps, 'step')}"] if rules.keep_every_steps else []
        lowest = f"lowest validation loss{f' on {rules.best_by}' if rules.best_by else ''}"
        stay += [f"the {rules.keep_best} of {lowest}"] if rules.keep_best else []
        parts.append(f"{', '.join(stay)} stay")
    if copy := host_bytes(config, layout):
        parts.append(f"written from a copy of about {readable(copy)} on each process's host")
    return "; ".join(parts)
