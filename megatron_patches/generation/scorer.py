"""Log-likelihoods of texts: how probable continuations are after contexts, as evaluations ask it.

A continuation's ids are predicted from the ids before them, at most `window` of them, the last ones: a longer context
is cut from the left. A continuation that is longer than the window is divided: each stretch of `window` ids (the last
one may be shorter) is predicted from as many ids in front of its own last one as fit. So every id is predicted once. An
empty context is the end of a document, after which a new one begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from megatron_patches.errors import Refused
from megatron_patches.generation.model_on_rank import Texts
from megatron_patches.generation.model_ranks import ModelRanks


@dataclass(frozen=True)
class ScoreRequest:
    """Token ids; either may be empty."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclass(frozen=True)
class Score:
    """What a model thinks of one continuation."""

    log_probabilities: tuple[float, ...]
    """of each of its ids, in nats"""
    is_greedy: bool
    """whether each of its ids is the likeliest where it stands; true of an empty one"""

    @property
    def log_probability(self) -> float:
        """Of the whole continuation, in nats."""
        return sum(self.log_probabilities)

    @property
    def count(self) -> int:
        """Ids of the continuation."""
        return len(self.log_probabilities)


@dataclass(frozen=True)
class _Window:
    """What the model reads at once for a stretch of one request's continuation."""

    request: int
    ids: Sequence[int]
    """the last of them predict the labels"""
    labels: Sequence[int]
    prefix: int
    """ids of the context among them, which is the prefix of a model that reads one"""


class Scorer:
    """Scores with a model, many requests at once.

    Args:
        window: most ids that the model sees.
        end_of_document: what an empty context stands for; None if the tokenizer has none.
        batch_tokens: most ids of a batch, what fills shorter texts up included; one text may be longer.
    """

    def __init__(self, ranks: ModelRanks, window: int, end_of_document: int | None, batch_tokens: int = 4096) -> None:
        self._ranks = ranks
        self._window = window
        self._end_of_document = end_of_document
        self._batch_tokens = batch_tokens

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """The score of each request, in their order. A request's score does not depend on the others.

        Log-probabilities are those of the training's softmax, in fp32, over all rows of the output matrix.

        Raises:
            Refused: a context is empty, and the tokenizer has no token that ends documents; or an id stands for no
                text.
        """
        for number, each in enumerate(requests):
            self._check(number, each)
        windows = [window for number, each in enumerate(requests) for window in self._windows(number, each)]
        found: list[list[float]] = [[] for _ in requests]
        greedy = [True] * len(requests)
        scored = [([0.0], False)] * len(windows)
        for batch in self._batches(windows):
            for place, result in zip(batch, self._score([windows[place] for place in batch]), strict=True):
                scored[place] = result
        for window, (values, is_greedy) in zip(windows, scored, strict=True):
            found[window.request] += values
            greedy[window.request] &= is_greedy
        return [Score(tuple(values), each) for values, each in zip(found, greedy, strict=True)]

    def score_texts(self, texts: Sequence[Sequence[int]]) -> list[Score]:
        """The score of each whole text, as it begins a document: what a perplexity over long texts is made of."""
        return self.score([ScoreRequest((), text) for text in texts])

    def _check(self, number: int, request: ScoreRequest) -> None:
        ids = (*request.context, *request.continuation)
        known = self._ranks.known_ids
        if ids and not 0 <= min(ids) <= max(ids) < known:
            wrong = next(each for each in ids if not 0 <= each < known)
            raise Refused(f"request {number} has the id {wrong}, and the tokenizer's are 0 to {known - 1}: correct it")

    def _windows(self, number: int, request: ScoreRequest) -> Iterator[_Window]:
        if not request.context and self._end_of_document is None:
            raise Refused("the tokenizer has no end-of-document token to begin a text after: give a context")
        context = list(request.context) or [self._end_of_document or 0]
        ids = [*context, *request.continuation]
        for begin in range(len(context), len(ids), self._window):
            end = min(begin + self._window, len(ids))
            first = max(0, end - 1 - self._window)
            yield _Window(number, ids[first : end - 1], ids[begin:end], max(0, len(context) - first))

    def _batches(self, windows: Sequence[_Window]) -> Iterator[list[int]]:
        """Places of windows that are read together, the longest first: what needs most memory shows at once."""
        batch: list[int] = []
        for place in sorted(range(len(windows)), key=lambda each: -len(windows[each].ids)):
            if batch and (len(batch) + 1) * len(windows[batch[0]].ids) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _score(self, windows: Sequence[_Window]) -> Iterator[tuple[list[float], bool]]:
        """Of each window its labels' log-probabilities, and whether all are the likeliest."""
        most = max(len(window.labels) for window in windows)
        places, labels = torch.zeros((2, len(windows), most), dtype=torch.int64)
        for row, window in enumerate(windows):
            count = len(window.labels)
            places[row, :count] = torch.arange(len(window.ids) - count, len(window.ids))
            labels[row, :count] = torch.tensor(window.labels)
        texts = Texts([window.ids for window in windows], [min(each.prefix, len(each.ids)) for each in windows])
        values, likeliest = self._ranks.log_probabilities(texts, places, labels)
        for row, window in enumerate(windows):
            count = len(window.labels)
            yield values[row, :count].tolist(), torch.equal(likeliest[row, :count], labels[row, :count])
