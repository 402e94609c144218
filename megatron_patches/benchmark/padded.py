"""The same documents without packing: one to a sample, padded to the sample's length, as loaders do by default."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.plans.samples_config import PacksConfig
from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import Launch

PADDED = "padded"
"""the peer's name"""


def padded_samples(config: RunConfig) -> str:
    """The override that puts each text of a run's packs into a sample of its own, cut as the packs cut them.

    Raises:
        TrainyardError: the run has no packs, or chooses documents in a way that windows do not.
    """
    packs = config.data.samples
    if not isinstance(packs, PacksConfig):
        raise TrainyardError(
            f"{config.name}: --peer {PADDED} compares packs with padding, and data.samples is {packs.name}; add "
            "--data.samples packs"
        )
    if packs.longer == "drop":
        raise TrainyardError(
            f"{config.name}: --peer {PADDED} cuts documents that are longer than a sample, and this run drops them; "
            "add --data.samples.longer cut"
        )
    if packs.filters.given:
        raise TrainyardError(
            f"{config.name}: --peer {PADDED} would filter pieces of documents, and packs filter whole ones; add "
            "--data.samples.filters null"
        )
    shared = packs.model_dump(exclude={"name", "longer", "block_documents", "filters"})
    return f"--data.samples={json.dumps({'name': 'windows', 'balance_last': False, **shared})}"


def padded_launch(launch: Launch) -> Launch:
    """The launch of the padded run, in a folder of its own: neither may write into the other's records."""
    return Launch(launch.directory.parents[2] / PADDED / "launches" / launch.directory.name)


@dataclass(frozen=True)
class TextRead:
    """What the measured turns of one side read."""

    rates: list[float]
    """tokens that count a second, of each turn"""
    share: float
    """of all their places, those that held text"""


def text_read(seconds: Sequence[float], padding: Sequence[float], steps: int, places: int) -> TextRead:
    """Text tokens a second, for turns of `steps` steps each.

    Args:
        seconds: of each measured turn.
        padding: share of padding of every step, those of the warm-up before them included.
        places: places of a step's samples.
    """
    text = 1 - np.asarray(padding, dtype=np.float64)[-len(seconds) * steps :].reshape(len(seconds), steps)
    return TextRead((text.sum(axis=1) * places / np.asarray(seconds)).tolist(), float(text.mean()))
