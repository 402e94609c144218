"""Whether a split in file order holds out another kind of text than it trains on: code is trained on, docs held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts
from data_tools.datasets.selection import DocumentRange
from megatron_patches.bit_mixing import mix
from megatron_patches.foreign.printable import shortened

VALIDATION_DOCUMENTS = 64
TRAINING_DOCUMENTS = 128
TOKENS_READ = 2000
"""of each of them at most, so that looking costs 192 small reads"""
FREQUENT_TOKENS = 64
"""that are told apart: punctuation and small words show the kind of a text, rarer ones its subject"""
SHUFFLES = 999
TIMES_CHANCE = 2.0
"""a warning needs this many times the difference that chance gives"""
LEAST_DIFFERENCE = 0.012
"""and this much beyond it, in bits. In file order, 5 % of WikiText-2 by lines (the last articles) differ by 0.008 from
the rest, of GSM8K by nothing; answers from questions and answers by 0.02, Python's documentation from its sources by
0.07"""


class SplitShard(NamedTuple):
    """One dataset of a source that is split in file order."""

    dataset: IndexedDataset
    facts: DatasetFacts
    training: DocumentRange
    validation: DocumentRange


@dataclass(frozen=True)
class Difference:
    """How differently two samples use the frequent tokens: Jensen-Shannon divergences (Lin 1991), 0 to 1 bit."""

    found: float
    by_chance: float
    """Mean of what samples of the same sizes differ in where all documents are shuffled together."""
    most_by_chance: float
    """The largest of these."""

    @property
    def is_of_kind(self) -> bool:
        """Whether they are samples of different text.

        Of samples of the same text, what was found is the largest of all in one case of 1,000 at most (a permutation
        test); the other conditions keep what is certain and small, such as articles in their order, from a warning.
        """
        is_certain = self.found > self.most_by_chance
        return is_certain and self.found > max(TIMES_CHANCE * self.by_chance, LEAST_DIFFERENCE + self.by_chance)


def order_warning(shards: Sequence[SplitShard]) -> str | None:
    """A sentence with the remedy, if the validation documents are of another kind than those for training.

    Up to 64 documents for validation and 128 for training are looked at, spread over each part and the same ones each
    time. Where there are too few to tell, there is no warning. Manifests say which files the documents came from; that
    alone is no sign, since text is often written to many files of the same kind.

    Raises:
        Damaged: the index of a dataset is not in order where it is read.
    """
    validation = _sample(shards, [each.validation for each in shards], VALIDATION_DOCUMENTS, 0)
    training = _sample(shards, [each.training for each in shards], TRAINING_DOCUMENTS, 1)
    if not validation or not training:
        return None
    difference = difference_of(training, validation)
    if not difference.is_of_kind:
        return None
    return (
        "the documents for validation are another kind of text than those for training: in the frequent tokens they "
        f"differ by {difference.found:.3f} bits, in random order by {difference.by_chance:.3f} (Jensen-Shannon "
        f"divergence){_sources_said(shards)}. The split is in file order, so a validation loss says little of the text "
        "that is trained on; set data.split_by to document_hash, or shuffle the documents before tools/preprocess"
    )


def _sample(
    shards: Sequence[SplitShard], ranges: Sequence[DocumentRange], count: int, stream: int
) -> list[NDArray[Any]]:
    """The first tokens of documents from all ranges, one from each of `count` stretches; empty ones are passed over."""
    starts = list(accumulate((each.end - each.first for each in ranges), initial=0))
    total = starts[-1]
    places = np.arange(min(count, total), dtype=np.uint64)
    within = mix(places * np.uint64(2) + np.uint64(stream + 1)) / 2.0**64  # a period of the documents is not met
    chosen = np.minimum(((places + within) * (total / max(1, len(places)))).astype(np.int64), total - 1)
    shard_of = np.searchsorted(starts, chosen, "right") - 1
    read = (
        _beginning(shards[shard].dataset, ranges[shard].first + document - starts[shard])
        for shard, document in zip(shard_of.tolist(), chosen.tolist(), strict=True)
    )
    return [tokens for tokens in read if len(tokens)]


def _beginning(dataset: IndexedDataset, document: int) -> NDArray[Any]:
    start, end = (dataset.document_token_offset(document + after) for after in (0, 1))
    return dataset.tokens[start : min(end, start + TOKENS_READ)]


def difference_of(training: Sequence[NDArray[Any]], validation: Sequence[NDArray[Any]]) -> Difference:
    """Compares two samples, and samples of the same sizes of both together, 999 times.

    Args:
        training, validation: the token ids of each document; at least one document each, none empty.
    """
    counts = _frequent_tokens([*validation, *training])
    chosen = np.zeros((SHUFFLES + 1, len(counts)))
    chosen[:, : len(validation)] = 1
    chosen[1:] = np.random.default_rng(0).permuted(chosen[1:], axis=1)
    sums = (chosen @ counts, (1 - chosen) @ counts)
    one, other = (each / each.sum(axis=1, keepdims=True) for each in sums)
    found = _entropy((one + other) / 2) - (_entropy(one) + _entropy(other)) / 2
    return Difference(float(found[0]), float(found[1:].mean()), float(found[1:].max()))


def _frequent_tokens(documents: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """How often each document has each of the most frequent tokens, and all others: [documents, 65]."""
    ids, column, total = np.unique(np.concatenate(documents), return_inverse=True, return_counts=True)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(-total, kind="stable")] = np.arange(len(ids))
    row = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    columns = FREQUENT_TOKENS + 1
    cells = row * columns + np.minimum(rank, FREQUENT_TOKENS)[column.ravel()]
    return np.bincount(cells, minlength=len(documents) * columns).reshape(-1, columns).astype(np.float64)


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """In bits, of each row."""
    logarithms = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return np.asarray(-np.sum(shares * logarithms, axis=1))


def _sources_said(shards: Sequence[SplitShard]) -> str:
    """The file that most of validation comes from, where manifests tell, and little of training does."""
    held_out: dict[str, int] = {}
    trained_on: dict[str, int] = {}
    for shard in shards:
        end = 0
        for source in shard.facts.sources:
            start, end = end, end + source.documents
            held_out[source.name] = held_out.get(source.name, 0) + _common(shard.validation, start, end)
            trained_on[source.name] = trained_on.get(source.name, 0) + _common(shard.training, start, end)
    if not sum(held_out.values()) or not sum(trained_on.values()):
        return ""
    name = max(held_out, key=lambda each: held_out[each])
    of_validation, of_training = held_out[name] / sum(held_out.values()), trained_on[name] / sum(trained_on.values())
    if of_validation < 0.5 or of_training > of_validation / 2:
        return ""
    return f"; {shortened(name, 100)} is {of_validation:.0%} of validation and {of_training:.0%} of training"


def _common(documents: DocumentRange, start: int, end: int) -> int:
    return max(0, min(documents.end, end) - max(documents.first, start))
