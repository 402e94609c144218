"""Weights of a blend from what its sources hold: powers of their tokens, and a limit to how often each is read."""

import math
from collections.abc import Sequence
from fractions import Fraction

from data_tools.samples.blend import PERIOD, apportion, whole_weights
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

MOST_EPOCHS = 1e6
"""a limit to how often a source is read is at most this"""


def alpha_of(temperature: float) -> float:
    """The power that a temperature stands for, 1 / T.

    Raises:
        TrainyardError: the temperature is below 1, or not a finite number.
    """
    if not 1 <= temperature < math.inf:
        raise TrainyardError(
            f"a temperature of {temperature:g} is not a finite number of at least 1. 1 keeps the proportions of the "
            "tokens, higher ones bring the weights nearer to each other; for equal weights give --equal"
        )
    return 1 / temperature


def powers(tokens: Sequence[int], alpha: float) -> list[float]:
    """Each source's share of the tokens, raised to a power; they do not sum to 1.

    Source: Lample and Conneau 2019, "Cross-lingual Language Model Pretraining", section 3.1.

    Args:
        tokens: of each source, positive.
        alpha: from 0, equal weights, to 1, the proportions of the tokens. Outside, the result would be none that a
            blend is made for: below 0 the smallest source is read most, above 1 small ones less than they have.

    Raises:
        TrainyardError: alpha is not from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise TrainyardError(
            f"an alpha of {alpha:g} is not from 0 to 1. 1 keeps the proportions of the tokens, 0 gives equal weights; "
            "for any other weights give a file, --ratios FILE.json"
        )
    total = sum(tokens)
    return [(each / total) ** alpha for each in tokens]


def within_epochs(
    weights: Sequence[float], names: Sequence[str], held: Sequence[int], tokens: int, most_epochs: float
) -> tuple[int, ...]:
    """Whole weights with which no source is read more often than it may be.

    A source whose weight asks for more gets what its limit allows, rounded down, and the others share the rest in
    proportion to their weights, so that what was asked for is read in all.

    Args:
        weights: of each source, positive.
        names: of the sources, for messages.
        held: tokens of each source.
        tokens: to be read in all.
        most_epochs: how often each source may be read.

    Returns:
        Whole weights that sum to `PERIOD`.

    Raises:
        TrainyardError: the sources do not hold enough, or one holds so little that any weight is too much.
    """
    # exact: a weight that is rounded up past its limit would make a run that is refused
    most = [math.floor(Fraction(most_epochs) * each * PERIOD / tokens) for each in held]
    _check_that_it_is_enough(most, names, held, tokens, most_epochs)
    whole = list(whole_weights(weights))
    free = list(range(len(whole)))
    while over := {number for number in free if whole[number] > most[number]}:
        for number in over:
            whole[number] = most[number]
        free = [number for number in free if number not in over]
        rest = PERIOD - (sum(whole) - sum(whole[number] for number in free))
        for number, share in zip(free, apportion([weights[each] for each in free], rest), strict=True):
            whole[number] = share
    return tuple(whole)


def _check_that_it_is_enough(
    most: Sequence[int], names: Sequence[str], held: Sequence[int], tokens: int, most_epochs: float
) -> None:
    """Raises TrainyardError unless whole weights up to `most` can sum to `PERIOD`, each at least 1."""
    # rounding down costs each source less than one part of the period, so this much is certain to be had
    certain = Fraction(max(1, PERIOD - len(held)), PERIOD)
    epochs = math.ceil(1000 * tokens / (sum(held) * certain)) / 1000
    higher = f", or --max-epochs {epochs:.10g}" if epochs <= MOST_EPOCHS else ""
    enough = math.floor(Fraction(most_epochs) * sum(held))
    if enough < tokens:
        raise TrainyardError(
            f"{tokens:,} tokens cannot be read: the sources hold {sum(held):,}, which gives {enough:,} with "
            f"--max-epochs {most_epochs:g}. Give more data{',' if higher else ' or'} fewer --tokens{higher}"
        )
    small = [number for number, each in enumerate(most) if each < 1]
    if small:
        raise TrainyardError(
            f"{_named(small, names)}: with --max-epochs {most_epochs:g} that is less than 1/{PERIOD:,} of {tokens:,} "
            "tokens, the smallest weight. Leave it out, join it with another source, or give a higher --max-epochs"
        )
    if sum(most) < PERIOD:
        raise TrainyardError(
            f"{tokens:,} tokens are all that the sources give with --max-epochs {most_epochs:g}, and whole parts of "
            f"{PERIOD:,} cannot divide them so closely. Give --tokens {math.floor(enough * certain)}{higher}"
        )


def _named(numbers: Sequence[int], names: Sequence[str]) -> str:
    shown = ", ".join(shortened(names[number], 60) for number in numbers[:5])
    return shown + (f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else "")
