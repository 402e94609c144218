"""How often tests of evaluations see a difference that is not there, and one that is.

    python -m tests.statistics_experiment

20,000 simulated comparisons a line. A test keeps its level where it sees a difference that is not there in 4 to 6 % of
them. It takes half a minute; with OPENBLAS_NUM_THREADS=1 on a machine that others use too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from megatron_patches.evaluation.statistics.clusters import Clusters, standard_error
from megatron_patches.evaluation.statistics.distributions import Floats
from megatron_patches.evaluation.statistics.mcnemar import mid_p
from megatron_patches.evaluation.statistics.power import (
    Demands,
    mcnemar_power,
    smallest_difference_in_clusters,
)
from megatron_patches.evaluation.statistics.sign_flips import Flipped, drawn_signs
from megatron_patches.evaluation.statistics.tango import score_interval

SIMULATIONS = 20_000
DRAWS = 999
ALPHA = 0.05
# test questions of MMLU's 57 subjects
MMLU = [
    100, 135, 152, 100, 265, 144, 100, 100, 100, 173, 102, 100, 235, 114, 145, 378, 126, 100, 310, 203, 100, 165, 198,
    193, 390, 270, 238, 151, 545, 216, 204, 237, 223, 131, 121, 108, 163, 112, 103, 234, 100, 783, 346, 895, 306, 311,
    324, 282, 1534, 272, 612, 110, 245, 201, 100, 166, 171,
]  # fmt: skip
SIZES = {
    "10 equal": np.full(10, 100.0),
    "10 unequal": np.array([20.0, 30, 45, 60, 80, 110, 160, 240, 400, 900]),
    "20 unequal": np.round(20 * 1.22 ** np.arange(20)),
    "57 of MMLU": np.array(MMLU, dtype=np.float64),
}


@dataclass(frozen=True)
class Line:
    """What part of the simulations each test called a difference, or each interval held the truth."""

    case: str
    shares: dict[str, float]


def exact_p(first_alone: Floats, second_alone: Floats) -> Floats:
    """The exact conditional McNemar test."""
    both = first_alone + second_alone
    return np.minimum(1, 2 * stats.binom.cdf(np.minimum(first_alone, second_alone), both, 0.5))


def discordant(
    random: np.random.Generator, simulations: int, items: int, share: float, difference: float
) -> tuple[Floats, Floats]:
    """Items that the first, and the second model alone has right."""
    chances = [(share - difference) / 2, (share + difference) / 2, 1 - share]
    drawn = random.multinomial(items, chances, simulations).astype(np.float64)
    return drawn[:, 0], drawn[:, 1]


def paired(simulations: int, seed: int = 0) -> Iterator[Line]:
    """Accuracies of independent items, with and without a difference; how often Tango's interval holds the truth."""
    random = np.random.default_rng(seed)
    for items, share, difference in (
        *((200, 0.2, 0.0), (1319, 0.1, 0.0), (10042, 0.2, 0.0), (200, 0.2, 0.08), (1319, 0.1, 0.024)),
        (10042, 0.2, 0.0125),
    ):
        first, second = discordant(random, simulations, items, share, difference)
        right = 0.3 * items  # for the unpaired test, which needs the accuracies; no pair's chances depend on them
        one, other = right / items, (right + second - first) / items
        errors = (one * (1 - one) + other * (1 - other)) / (items - 1)
        low, high = score_interval(second, first, items, ALPHA)
        shares = {
            "mid-p": (mid_p(first, second) <= ALPHA).mean(),
            "exact": (exact_p(first, second) <= ALPHA).mean(),
            "unpaired z": (2 * stats.norm.sf(np.abs(other - one) / np.sqrt(errors)) <= ALPHA).mean(),
            "Tango holds": ((low <= difference) & (difference <= high)).mean(),
        }
        if difference:
            shares["mid-p, summed"] = mcnemar_power(items, share, difference, ALPHA)
        yield Line(f"{items:,} items, {share:.0%} discordant, difference {difference:g}", shares)


def numbers(simulations: int, seed: int = 1) -> Iterator[Line]:
    """Numbers of the same items by t on their differences, and accuracies of different items by z; no difference."""
    random = np.random.default_rng(seed)
    for items in (30, 100):
        differences = random.laplace(size=(simulations, items)) * random.gamma(2, size=(simulations, items))
        t = differences.mean(1) / (differences.std(1, ddof=1) / np.sqrt(items))
        yield Line(f"{items} pairs of numbers, long tails", {"t": (2 * stats.t.sf(abs(t), items - 1) <= ALPHA).mean()})
    for items in (200, 2000):
        one, other = random.binomial(items, 0.3, (2, simulations)) / items
        errors = np.sqrt((one * (1 - one) + other * (1 - other)) / (items - 1))
        found = (2 * stats.norm.sf(np.abs(other - one) / errors) <= ALPHA).mean()
        yield Line(f"{items:,} and {items:,} other items", {"unpaired z": found})


Effects = Callable[[np.random.Generator, tuple[int, int]], Floats]


def symmetric(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Effects of clusters, of variance 1."""
    return random.normal(size=shape)


def lopsided(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """The same, four of five a little below 0 and one far above."""
    return np.where(random.random(shape) < 0.2, 2.0, -0.5)


def clustered_sums(
    random: np.random.Generator, simulations: int, sizes: Floats, correlation: float, effects: Effects,
    difference: float = 0.0, share: float = 0.2,
) -> Clusters:  # fmt: skip
    """Sums of differences of answers in clusters whose items share an effect."""
    effect = difference + np.sqrt(correlation * share) * effects(random, (simulations, len(sizes)))
    effect = np.clip(effect, -share, share)
    counts = np.broadcast_to(sizes.astype(np.int64), effect.shape)
    more = random.binomial(counts, (share + effect) / 2)
    fewer = random.binomial(counts - more, np.clip((share - effect) / 2 / (1 - (share + effect) / 2), 0, 1))
    return Clusters(sizes, (more - fewer).astype(np.float64))


def p_of_signs(clusters: Clusters, signs: Floats) -> Floats:
    """p values of the sign flips, of some draws at a time: what is in the cache is computed ten times as fast."""
    parts = np.array_split(clusters.sums, max(1, len(clusters.sums) // 32))
    return np.concatenate([Flipped(part, clusters.sizes, signs).p() for part in parts])


def t_over_clusters(clusters: Clusters) -> Floats:
    """p values of t with the cluster-robust standard error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(clusters.mean / standard_error(clusters))
    return np.asarray(2 * stats.t.sf(np.abs(t), len(clusters.sizes) - 1))


def resampled_clusters(clusters: Clusters, seed: int = 3) -> Floats:
    """p values of the studentised bootstrap that draws clusters with replacement."""
    count, sizes = len(clusters.sizes), clusters.sizes
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS).astype(np.float64)
    items = times @ sizes
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = clusters.mean / standard_error(clusters)
        for part in np.array_split(np.arange(len(seen)), max(1, len(seen) // 256)):
            sums = clusters.sums[part]
            means = sums @ times.T / items
            squares = (sums**2) @ times.T - 2 * means * ((sizes * sums) @ times.T) + means**2 * (times @ sizes**2)
            errors = np.sqrt(np.maximum(squares, 0) * count / (count - 1)) / items
            beyond = np.abs(means - clusters.mean[part, None]) / errors >= np.abs(seen[part, None])
            found.append((1 + beyond.sum(1)) / (DRAWS + 1))
    return np.concatenate(found)


def clustered(simulations: int, seed: int = 2) -> Iterator[Line]:
    """Accuracies of items in clusters; no difference."""
    random = np.random.default_rng(seed)
    for name, sizes in SIZES.items():
        for correlation, effects in ((0.0, symmetric), (0.05, symmetric), (0.3, symmetric), (0.05, lopsided)):
            drawn = clustered_sums(random, simulations, sizes, correlation, effects)
            shares = {
                "sign flips": (p_of_signs(drawn, drawn_signs(len(sizes), DRAWS)) <= ALPHA).mean(),
                "resampled": (resampled_clusters(drawn) <= ALPHA).mean(),
                "t": (t_over_clusters(drawn) <= ALPHA).mean(),
                "as if independent": (np.abs(drawn.mean) >= 1.96 * np.sqrt(0.2 / sizes.sum())).mean(),
            }
            yield Line(f"{name}, correlation {correlation:g}{', lopsided' * (effects is lopsided)}", shares)


def planned(simulations: int, seed: int = 4) -> Iterator[Line]:
    """How often sign flips see the difference that the plan says they would see with a power of 0.8."""
    random = np.random.default_rng(seed)
    for name, sizes in SIZES.items():
        for correlation in (0.0, 0.02):
            difference = smallest_difference_in_clusters(sizes, 0.2, correlation, Demands())
            assert difference is not None
            drawn = clustered_sums(random, simulations, sizes, correlation, symmetric, difference)
            seen = (p_of_signs(drawn, drawn_signs(len(sizes), DRAWS)) <= ALPHA).mean()
            yield Line(f"{name}, correlation {correlation:g}, difference {difference:.3f}", {"sign flips": seen})


def main() -> None:
    """Prints a line as soon as it is there."""
    parts = {
        "Accuracies of the same independent items": paired,
        "Numbers of the same items, and accuracies of different ones": numbers,
        "Accuracies of items in clusters, no difference": clustered,
        "The same, with the difference that the plan says is seen with a power of 0.8": planned,
    }
    for title, lines in parts.items():
        print(f"{title}:")
        for line in lines(SIMULATIONS):
            shares = "  ".join(f"{name} {100 * share:5.2f} %" for name, share in line.shares.items())
            print(f"  {line.case:48} {shares}", flush=True)


if __name__ == "__main__":
    main()
