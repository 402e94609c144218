"""Causal language modelling: every token predicts the next one."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.objectives.documents import find_documents
from megatron_patches.objectives.micro_batch import PLAIN_CONTEXT, MicroBatch, TokenContext
from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig


class Causal:
    """Windows as inputs, labels and weights; nothing is drawn, so the number of a sample does not matter."""

    def __init__(self, config: CausalConfig, end_of_document: int | None) -> None:
        self._config = config
        self._end_of_document = end_of_document

    def __call__(self, windows: Tensor, samples: NDArray[np.int64]) -> MicroBatch:
        """See `objectives.build.Objective`."""
        tokens = windows[:, :-1].contiguous()
        return MicroBatch(
            tokens=tokens,
            labels=windows[:, 1:].contiguous(),
            weights=plain_weights(tokens, self._config, self._end_of_document),
            context=self._context(tokens),
        )

    def _context(self, tokens: Tensor) -> TokenContext:
        """What there is of it follows from the configuration alone: a pipeline sends as many tensors every time."""
        config = self._config
        if not (config.reset_attention or config.reset_positions):
            return PLAIN_CONTEXT
        assert self._end_of_document is not None
        documents = find_documents(tokens, self._end_of_document)
        return TokenContext(
            positions=documents.positions() if config.reset_positions else None,
            visible=_own_document(documents.at_places(documents.start)) if config.reset_attention else None,
        )


def _own_document(starts: Tensor) -> Tensor:
    beyond_itself = torch.arange(1, starts.shape[1] + 1)
    return torch.stack((starts, beyond_itself.expand_as(starts)), dim=-1)


def plain_weights(tokens: Tensor, config: CausalConfig | PrefixLMConfig, end_of_document: int | None) -> Tensor:
    """1 for every place, 0 where the next token is that of an unrelated document and shall not count; fp32."""
    if config.loss_after_end_of_document:
        return torch.ones(tokens.shape)
    assert end_of_document is not None
    return (tokens != end_of_document).float()
