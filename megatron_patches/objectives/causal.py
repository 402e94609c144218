"""CausalObjective language modelling: every token predicts the next one."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives.documents import find_documents
from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig


class CausalObjective:
    """Windows as inputs, labels and weights; nothing is drawn, so the number of a sample does not matter."""

    def __init__(self, config: CausalConfig, end_of_document: int | None) -> None:
        self._config = config
        self._end_of_document = end_of_document

    def __call__(self, items: Mapping[str, Tensor], samples: NDArray[np.int64]) -> MicroBatch:
        """See `objectives.build.Objective`."""
        tokens = items["tokens"][:, :-1].contiguous()
        return MicroBatch(
            inputs={"tokens": tokens, **self._context(tokens)},
            labels=items["tokens"][:, 1:].contiguous(),
            weights=plain_weights(tokens, self._config, self._end_of_document),
        )

    def _context(self, tokens: Tensor) -> dict[str, Tensor]:
        """The further fields that the section declares; a document's number is the place it begins at."""
        config, found = self._config, {}
        if config.reset_attention or config.reset_positions:
            assert self._end_of_document is not None
            documents = find_documents(tokens, self._end_of_document)
            if config.reset_positions:
                found["positions"] = documents.positions()
            if config.reset_attention:
                found["documents"] = documents.at_places(documents.start)
        return found


def plain_weights(tokens: Tensor, config: CausalConfig | PrefixLMConfig, end_of_document: int | None) -> Tensor:
    """1 for every place, 0 where the next token is that of an unrelated document and shall not count; fp32."""
    if config.loss_after_end_of_document:
        return torch.ones(tokens.shape)
    assert end_of_document is not None
    return (tokens != end_of_document).float()
