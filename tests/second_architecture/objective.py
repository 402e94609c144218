"""The batches of `second_half`."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives.objective import Objective
from tests.second_architecture.config import DECODER_TOKENS, ENCODER_TOKENS, SecondHalfConfig


class SecondHalf(Objective):
    """See `objectives.build.Objective`; nothing is drawn."""

    def __init__(self, config: SecondHalfConfig, seed: int, end_of_document: int | None) -> None:
        self._config = config

    def __call__(self, items: Mapping[str, Tensor], samples: NDArray[np.int64]) -> MicroBatch:
        tokens = items["tokens"]
        encoder = self._config.lengths(tokens.shape[1] - 1).of("encoder")
        decoder_tokens = tokens[:, encoder:-1].contiguous()
        return MicroBatch(
            inputs={ENCODER_TOKENS.name: tokens[:, :encoder].contiguous(), DECODER_TOKENS.name: decoder_tokens},
            labels=tokens[:, encoder + 1 :].contiguous(),
            weights=torch.ones(decoder_tokens.shape),
        )
