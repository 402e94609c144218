"""CausalObjective language modelling: every token predicts the next one."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives.documents import DocumentSpans, find_documents, segment_spans
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig


class CausalObjective(Objective):
    """Windows as inputs, labels and weights; nothing is drawn, so the number of a sample does not matter."""

    def __init__(self, config: CausalConfig, end_of_document: int | None) -> None:
        self._config = config
        self._end_of_document = end_of_document

    def __call__(self, items: Mapping[str, Tensor], samples: NDArray[np.int64]) -> MicroBatch:
        """See `Objective`."""
        tokens = items["tokens"][:, :-1].contiguous()
        return MicroBatch(
            inputs={"tokens": tokens, **self._context(items)},
            labels=items["tokens"][:, 1:].contiguous(),
            weights=next_token_weights(items, self._config, self._end_of_document),
        )

    def _context(self, items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The further fields that the section declares; a document's number is the place it begins at."""
        config, found = self._config, {}
        if config.reset_attention or config.reset_positions:
            documents = documents_of(items, self._end_of_document)
            if config.reset_positions:
                found["positions"] = documents.positions()
            if config.reset_attention:
                found["documents"] = documents.at_places(documents.start)
        return found


def next_token_weights(
    items: Mapping[str, Tensor], config: CausalConfig | PrefixLMConfig, end_of_document: int | None
) -> Tensor:
    """How much the next token counts at each place, fp32 `[batch, read - 1]`.

    1, but 0 where the next token is of another text or padding, where it is none of the answers, and where it is that
    of an unrelated document in a stream and shall not count.
    """
    tokens, weights = items["tokens"], torch.ones(items["tokens"][:, 1:].shape)
    if (segments := items.get("segments")) is not None:
        weights *= (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    elif not config.loss_after_end_of_document:
        assert end_of_document is not None
        weights *= tokens[:, :-1] != end_of_document
    if (answers := items.get("answers")) is not None:
        weights *= answers[:, 1:]
    return weights


def documents_of(items: Mapping[str, Tensor], end_of_document: int | None) -> DocumentSpans:
    """The documents of the tokens that the model sees: the texts that samples are made of, or those that end with the
    token that ends a document.
    """
    if (segments := items.get("segments")) is not None:
        return segment_spans(segments[:, :-1])
    assert end_of_document is not None
    return find_documents(items["tokens"][:, :-1], end_of_document)
