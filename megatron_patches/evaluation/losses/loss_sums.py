"""Sums over samples, and the mean over targets that they make, with its standard error. Torch-free."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_patches.artefacts.evaluations.result import Metric, Part
from megatron_patches.errors import Damaged, Refused


@dataclass(frozen=True)
class LossSums:
    """Of the samples of one group; a sample has a loss, which is the sum over its targets, and their number."""

    samples: int
    loss: float
    """nats, weighted"""
    targets: float
    """their weights added up"""
    loss_squares: float
    products: float
    """of loss and targets"""
    target_squares: float

    @classmethod
    def of(cls, samples: int, sums: Sequence[float]) -> "LossSums":
        """From the other numbers in their order."""
        return cls(samples, *sums)

    @property
    def sums(self) -> tuple[float, ...]:
        """All numbers but the samples, as `of` takes them: those of several parts of a group add up."""
        return (self.loss, self.targets, self.loss_squares, self.products, self.target_squares)

    @property
    def mean(self) -> float:
        """Nats per target."""
        return self.loss / self.targets

    @property
    def variance(self) -> float | None:
        """Of the mean over targets: samples are drawn, and each brings its targets with it (a ratio estimator, Cochran
        1977, section 2.11). None of a single sample.
        """
        if self.samples < 2:
            return None
        mean = self.mean
        residuals = self.loss_squares - 2 * mean * self.products + mean * mean * self.target_squares
        return max(0.0, residuals) * self.samples / (self.samples - 1) / self.targets**2

    def require_finite(self, name: str) -> None:
        """Raises Refused where there is no target, and Damaged where the loss is no number."""
        if self.targets <= 0:
            raise Refused(
                f"{name}: none of its {self.samples:,} samples has a token to be predicted (texts of a single token, "
                "or answers that the objective leaves out), so it has no loss; take more samples, or leave it out"
            )
        if not math.isfinite(self.loss):
            raise Damaged(
                f"{name}: the model's loss is not finite: its training diverged, or this precision is too small for "
                "it; name an earlier checkpoint"
            )


def part_of(sums: LossSums) -> Part:
    """What a group's sums say."""
    return Part(examples=predicted(sums.targets), metrics=metrics_of(sums.mean, sums.variance))


def pooled(groups: Sequence[LossSums]) -> dict[str, Metric]:
    """Of several groups the mean over all their targets."""
    targets = sum(each.targets for each in groups)
    mean = sum(each.loss for each in groups) / targets
    variances = [each.variance for each in groups]
    known = [each for each in variances if each is not None]
    if len(known) < len(variances):
        return metrics_of(mean, None)
    shares = [each.targets / targets for each in groups]
    return metrics_of(mean, sum(share**2 * each for share, each in zip(shares, known, strict=True)))


def predicted(targets: float) -> int:
    """Tokens that were predicted; where positions are weighted, as many as their weights stand for."""
    return max(1, round(targets))


def metrics_of(loss: float, variance: float | None) -> dict[str, Metric]:
    """Loss, and perplexity where a number can hold it."""
    error = None if variance is None else math.sqrt(variance)
    found = {"loss": Metric(value=loss, standard_error=error, higher_is_better=False)}
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        return found
    of_perplexity = None if error is None else perplexity * error
    if of_perplexity is not None and not math.isfinite(of_perplexity):
        of_perplexity = None
    return found | {"perplexity": Metric(value=perplexity, standard_error=of_perplexity, higher_is_better=False)}
