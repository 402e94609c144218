"""Numbers that are means over targets, with what it takes to add them up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """A mean over targets."""

    mean: float
    targets: float
    """how many it is over: their weights added up, so not always a whole number"""

    @property
    def sum(self) -> float:
        """Over the targets, weighted."""
        return self.mean * self.targets

    def __add__(self, other: "Tally") -> "Tally":
        """The mean over the targets of both; one of them must have some."""
        targets = self.targets + other.targets
        return Tally((self.sum + other.sum) / targets, targets)
