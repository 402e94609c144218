"""Prefix language modelling: a prefix sees itself whole, what follows is predicted token by token.

Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text transformer", section 3.2.1
(figure 3, "prefix LM"); the two switches are those of BigScience's Megatron-DeepSpeed.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.bit_mixing import mix
from megatron_patches.objectives.causal import documents_of, next_token_weights
from megatron_patches.objectives.documents import DocumentSpans, whole_samples
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import PrefixLMConfig


class PrefixLM(Objective):
    """Each sample has a prefix; where attention is reset, each document in it has one of its own."""

    def __init__(self, config: PrefixLMConfig, seed: int, end_of_document: int | None) -> None:
        self._config = config
        self._seed = seed
        self._end_of_document = end_of_document

    def __call__(self, items: Mapping[str, Tensor], samples: NDArray[np.int64]) -> MicroBatch:
        """See `Objective`."""
        config, tokens = self._config, items["tokens"][:, :-1].contiguous()
        if config.reset_attention:
            with_prefix = documents_of(items, self._end_of_document)
        else:  # a prefix drawn over padding would leave a short text without targets
            segments = items.get("segments")
            with_prefix = whole_samples(tokens, None if segments is None else segments[:, :-1])
        starts = with_prefix.at_places(with_prefix.start)
        prefix_ends = with_prefix.at_places(with_prefix.start + prefix_lengths(with_prefix, samples, self._seed))
        inputs = {"tokens": tokens}
        if config.reset_positions:
            inputs["positions"] = documents_of(items, self._end_of_document).positions()
        inputs["visible"] = torch.stack((starts, prefix_ends.maximum(torch.arange(1, tokens.shape[1] + 1))), dim=-1)
        labels, weights = items["tokens"][:, 1:].contiguous(), self._weights(items, prefix_ends)
        return MicroBatch(inputs, labels, weights)

    def _weights(self, items: Mapping[str, Tensor], prefix_ends: Tensor) -> Tensor:
        weights = next_token_weights(items, self._config, self._end_of_document)
        length = weights.shape[1]
        if self._config.loss_on_targets_only:
            # the last token of the prefix counts: what it predicts is the first one it does not see
            weights *= torch.arange(length) >= prefix_ends - 1
        if self._config.reweight_by_position:
            weights *= position_weights(length)
        return weights


def prefix_lengths(documents: DocumentSpans, samples: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Uniform in 1 ... length of the document: a pure function of (seed, number of the sample, number in the sample).

    `samples` is int64 `[batch]`. 32 random bits are scaled to the length, which favours no length by more than
    length / 2**32.
    """
    key = np.frombuffer(hashlib.sha256(f"prefix {seed}".encode()).digest()[:8], dtype="<u8")
    of_sample = mix(samples.astype(np.uint64) ^ key)
    drawn = mix(of_sample[documents.row] ^ documents.number.astype(np.uint64)) >> np.uint64(32)
    return 1 + ((drawn * documents.length.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def position_weights(length: int) -> Tensor:
    """2 (s - i) / (s + 1) at place i of s, fp32 `[length]`; 1 on average.

    A prefix whose length is uniform in 1 ... s leaves place i a target in i + 1 of s cases.
    """
    return torch.arange(length, 0, -1, dtype=torch.float32) * (2 / (length + 1))
