"""Masked language modelling: some tokens are hidden, and the model says what they were.

Devlin et al. 2019, "BERT", section 3.1 and appendix C.2: of the tokens that are to be predicted 80 % are replaced by
the mask token, 10 % by a random one, and 10 % stay.
"""

import hashlib
from collections.abc import Mapping
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.bit_mixing import mix
from megatron_patches.objectives.documents import DocumentSpans, find_documents, segment_spans
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.objective_config import MaskedLMConfig, ProbabilityRampConfig

_MASKED, _RANDOM = 0.8, 0.9
"""below the first a token becomes the mask token, below the second a random one"""


class MaskedLM(Objective):
    """In each sample a share of the tokens is to be predicted, chosen without replacement.

    Of n tokens that may be hidden, floor(p n + u) are, with u uniform in [0, 1): each is with probability p, and all
    samples have nearly as many, so that few places of `picked` are idle.
    """

    def __init__(
        self, config: MaskedLMConfig, seed: int, end_of_document: int | None, special: SpecialTokens | None
    ) -> None:
        assert special is not None and special.mask is not None, "the launch has looked for a mask token"
        self._config = config
        self._validates = False
        self._key = np.frombuffer(hashlib.sha256(f"mask {seed}".encode()).digest()[:8], dtype="<u8")
        self._end_of_document = end_of_document
        self._mask = special.mask
        self._special = np.fromiter(sorted(special.special), np.int64)
        self._ordinary = np.setdiff1d(np.arange(special.vocab_size), self._special)

    def __call__(self, items: Mapping[str, Tensor], samples: NDArray[np.int64]) -> MicroBatch:
        """See `Objective`."""
        tokens = items["tokens"]
        drawn = mix(samples.astype(np.uint64) ^ self._key)
        order, counts = self._chosen(self._may_be_hidden(items), samples, drawn)
        hidden = np.zeros(tokens.shape, dtype=bool)
        np.put_along_axis(hidden, order, np.arange(order.shape[1]) < counts[:, None], axis=1)
        inputs = {"tokens": torch.from_numpy(self._corrupted(tokens.numpy(), hidden, drawn)), **self._context(items)}
        if not self._config.masked_logits_only:
            return MicroBatch(inputs, tokens, torch.from_numpy(hidden.astype(np.float32)))
        most = self._config.lengths(tokens.shape[1]).of("picked")  # of a validation too: pipelines have one shape
        is_hidden = np.arange(most) < counts[:, None]
        places = np.sort(np.where(is_hidden, order[:, :most], tokens.shape[1]), axis=1)
        inputs["picked"] = torch.from_numpy(np.where(is_hidden, places, 0))
        weights = torch.from_numpy(is_hidden.astype(np.float32))
        return MicroBatch(inputs, tokens.gather(1, inputs["picked"]), weights)

    @property
    def for_validation(self) -> "MaskedLM":
        """With the probability at the ramp's end, and room for as many tokens as in training."""
        other = copy(self)
        other._validates = True
        return other

    def _may_be_hidden(self, items: Mapping[str, Tensor]) -> NDArray[np.bool_]:
        """Tokens of texts but the special ones; of pairs and chats those of answers, where these alone count."""
        may_be = ~np.isin(items["tokens"].numpy(), self._special)
        if (segments := items.get("segments")) is not None:
            may_be &= segments.numpy() >= 0
        if (answers := items.get("answers")) is not None:
            may_be &= answers.numpy() > 0
        return may_be

    def _chosen(
        self, may_be: NDArray[np.bool_], samples: NDArray[np.int64], drawn: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in the order in which they are taken, int64 `[batch, sequence]`, and how many are."""
        random = _numbers(drawn, 0, may_be.shape[1])
        order = np.argsort(np.where(may_be, random >> np.uint64(1), np.uint64(1) << np.uint64(63)), axis=1)
        expected = self._probabilities(samples) * may_be.sum(axis=1)
        counts = np.floor(expected + _fractions(mix(drawn ^ np.uint64(1))))
        return order, np.minimum(counts, np.ceil(expected)).astype(np.int64)

    def _probabilities(self, samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of each sample, capped at the largest: rounding could pass it, and with it the places."""
        ramp = self._config.probability
        if not isinstance(ramp, ProbabilityRampConfig):
            return np.full(len(samples), ramp)
        way = np.ones(len(samples)) if self._validates else np.minimum(samples / ramp.samples, 1.0)
        return np.minimum((1 - way) * ramp.start + way * ramp.end, self._config.largest_probability)

    def _corrupted(
        self, tokens: NDArray[np.int64], hidden: NDArray[np.bool_], drawn: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """What the model reads."""
        if self._config.mask_all:
            return np.where(hidden, self._mask, tokens)
        what = _fractions(_numbers(drawn, 1, tokens.shape[1]))
        numbers = _fractions(_numbers(drawn, 2, tokens.shape[1])) * len(self._ordinary)
        others = self._ordinary[numbers.astype(np.int64)]
        replaced = np.where(what < _MASKED, self._mask, np.where(what < _RANDOM, others, tokens))
        return np.where(hidden, replaced, tokens)

    def _context(self, items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The further fields that the section declares; a document's number is the place it begins at."""
        if not self._config.reset_attention:
            return {}
        documents = self._documents(items)
        return {"positions": documents.positions(), "documents": documents.at_places(documents.start)}

    def _documents(self, items: Mapping[str, Tensor]) -> DocumentSpans:
        if (segments := items.get("segments")) is not None:
            return segment_spans(segments)
        assert self._end_of_document is not None
        return find_documents(items["tokens"], self._end_of_document)


def _numbers(drawn: NDArray[np.uint64], purpose: int, places: int) -> NDArray[np.uint64]:
    """A random number for each place of each sample, uint64 `[batch, places]`; other purposes have others."""
    keys = np.uint64(purpose << 32) | np.arange(2, places + 2, dtype=np.uint64)
    return mix(drawn[:, None] ^ mix(keys))


def _fractions(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform in [0, 1), of 53 bits."""
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
