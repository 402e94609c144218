"""Pseudo-log-likelihoods of texts (Salazar et al. 2020, "Masked Language Model Scoring", equations 2 and 3).

Every token of a text is replaced by the mask token once, and predicted from all others. Their log-probabilities do not
add up to that of the text, since each token also sees those after it: the numbers compare encoders with one another,
and not with models that read from left to right.
"""

import math
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

import torch

from data_tools.text.special_tokens import special_tokens
from megatron_patches.artefacts.evaluations.result import Item, Metric
from megatron_patches.errors import Damaged, Refused
from megatron_patches.evaluation.encoders.item_ids import item_ids
from megatron_patches.evaluation.encoders.text_ends import TextEnds, ends_in_training
from megatron_patches.evaluation.losses.loss_sums import LossSums
from megatron_patches.evaluation.tasks.encoder_tasks import MaskedTextTask
from megatron_patches.evaluation.tasks.outcome import Outcome
from megatron_patches.generation.loaded_model import LoadedModel
from megatron_patches.generation.model_on_rank import Texts

PERPLEXITY, BITS = "pseudo_perplexity", "pseudo_bits_per_byte"


class Hidden(NamedTuple):
    """A text, or a window of it, with one token hidden."""

    text: int
    """its number"""
    ids: list[int]
    """what the model reads"""
    place: int
    """of the mask token"""
    label: int
    """id of the hidden token"""


class Scored(NamedTuple):
    """One text."""

    likelihood: float
    """nats: the log-probabilities of its hidden tokens added up"""
    tokens: int
    """that were hidden"""
    size: int
    """bytes of UTF-8"""


def pseudo_perplexity(loaded: LoadedModel, task: MaskedTextTask, batch_size: int | None) -> Outcome:
    """Asks a model for each token of each text.

    Args:
        loaded: an encoder, loaded with a `length` where more is to be seen than in training.
        batch_size: rows that the model reads at once, a row for each hidden token; None means the run's micro-batch.

    Raises:
        Refused: the tokenizer has no mask token, or a text has no token that could be hidden.
        Damaged: a log-probability is no number.
    """
    started = perf_counter()
    size = batch_size or loaded.config.training.micro_batch_size
    scored = score_texts(loaded, task.texts, size)
    return Outcome(
        task=task,
        through="engine",
        version=task.version,
        definition=task.definition,
        shots=0,
        examples=len(scored),
        metrics=_metrics(scored),
        seconds=perf_counter() - started,
        items=[
            Item(id=id, metrics={name: metric.value for name, metric in _metrics([each]).items()})
            for id, each in zip(item_ids(task.texts), scored, strict=True)
        ],
        data=task.data,
        versions={"torch": torch.__version__},
        precision=loaded.config.training.precision,
    )


def score_texts(loaded: LoadedModel, texts: Sequence[str], size: int) -> list[Scored]:
    """The pseudo-log-likelihood of each text.

    Args:
        size: rows that the model reads at once, at most.

    Raises:
        Refused: the tokenizer has no mask token, a text has no token that could be hidden, or the length has no room
            for one; no text is asked before.
        Damaged: a log-probability is no number.
    """
    special = special_tokens(loaded.tokenizer_folder, loaded.config.data.allow_invalid)
    if special.mask is None:
        raise Refused(f"tokenizer {loaded.tokenizer.name} has no mask token, so that no token can be hidden")
    ends = ends_in_training(loaded.config, special)
    if loaded.window <= ends.count:
        raise Refused(
            f"a length of {loaded.window} has no room for a token between cls and sep; give a longer --length"
        )
    encoded = loaded.tokenizer.encode_batch(texts)
    for number, (text, ids) in enumerate(zip(texts, encoded, strict=True), 1):
        _refuse_nothing_to_hide(number, text, ids, special.special)
    likelihoods, counts = [0.0] * len(texts), [0] * len(texts)
    for batch in _batches(_rows(encoded, special.mask, special.special, loaded.window, ends), size):
        places, labels = ([[getattr(row, name)] for row in batch] for name in ("place", "label"))
        asked = Texts([row.ids for row in batch], [0] * len(batch))
        found, _ = loaded.ranks.log_probabilities(asked, torch.tensor(places), torch.tensor(labels))
        for row, value in zip(batch, found.double().flatten().tolist(), strict=True):
            likelihoods[row.text] += value
            counts[row.text] += 1
    for number, likelihood in enumerate(likelihoods, 1):
        _check(number, likelihood)
    sizes = [len(text.encode()) for text in texts]
    return [Scored(*each) for each in zip(likelihoods, counts, sizes, strict=True)]


def _refuse_nothing_to_hide(number: int, text: str, ids: Sequence[int], kept: frozenset[int]) -> None:
    if kept.issuperset(ids):
        raise Refused(
            f"text {number:,} ({text[:40]!r}) has no token that could be hidden: its characters are none that the "
            "tokenizer knows; remove it"
        )


def _check(number: int, likelihood: float) -> None:
    if not math.isfinite(likelihood):
        raise Damaged(
            f"a log-probability of text {number:,} is not finite: the model's training diverged, or this precision is "
            "too small for it; name an earlier checkpoint"
        )


def _rows(
    texts: Sequence[Sequence[int]], mask: int, kept: frozenset[int], window: int, ends: TextEnds
) -> Iterator[Hidden]:
    """A row for each token that is hidden, those of equal length one after the other.

    In a text longer than the window a token sees the window that has it in the middle, or the first or last window near
    the ends of the text. As in training, special tokens are never hidden.
    """
    room = window - ends.count
    for number in sorted(range(len(texts)), key=lambda number: min(room, len(texts[number]))):
        ids, seen = list(texts[number]), min(room, len(texts[number]))
        for place, label in enumerate(ids):
            if label in kept:
                continue
            first = min(max(0, place - seen // 2), len(ids) - seen)
            read = ends.around(ids[first : first + seen])
            at = len(ends.before) + place - first
            read[at] = mask
            yield Hidden(number, read, at, label)


def _batches(rows: Iterator[Hidden], size: int) -> Iterator[list[Hidden]]:
    """Batches of rows of equal length: nothing masks the padding of a shorter row."""
    batch: list[Hidden] = []
    for row in rows:
        if batch and (len(batch) == size or len(row.ids) != len(batch[0].ids)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _metrics(texts: Sequence[Scored]) -> dict[str, Metric]:
    """The perplexity of all texts together, exp of the mean negative log-probability of their hidden tokens, and the
    same in bits for each byte of text, which no tokenizer changes. A perplexity too large for a float is left out.
    """
    by_token = _sums([(-each.likelihood, each.tokens) for each in texts])
    by_byte = _sums([(-each.likelihood / math.log(2), each.size) for each in texts])
    error = _error(by_token)
    found = {BITS: Metric(value=by_byte.mean, standard_error=_error(by_byte), higher_is_better=False)}
    try:
        value = math.exp(by_token.mean)
    except OverflowError:
        return found
    of_value = None if error is None or not math.isfinite(value * error) else value * error
    return {PERPLEXITY: Metric(value=value, standard_error=of_value, higher_is_better=False)} | found


def _sums(texts: Sequence[tuple[float, int]]) -> LossSums:
    """Loss and number of each text, as sums of a ratio."""
    return LossSums(
        len(texts),
        math.fsum(loss for loss, _ in texts),
        float(sum(count for _, count in texts)),
        math.fsum(loss * loss for loss, _ in texts),
        math.fsum(loss * count for loss, count in texts),
        float(sum(count * count for _, count in texts)),
    )


def _error(sums: LossSums) -> float | None:
    """The standard error of the mean; texts are drawn, and each brings its tokens with it."""
    return None if sums.variance is None else math.sqrt(sums.variance)
