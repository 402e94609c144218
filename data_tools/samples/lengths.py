"""How long a sample is, in the four senses that matter. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SampleLengths:
    """Of one sample, in tokens. An objective declares it; whatever depends on a length asks it."""

    read: int
    """tokens that a sample reads from its source"""
    stride: int
    """tokens from the beginning of one sample to that of the next, in a stream that is cut into samples"""
    positions: tuple[tuple[str, int], ...]
    """positions of the tensors that the model sees, by the names that fields' shapes use: (("tokens", 2048),)"""
    counted: int
    """tokens that count: what a run's progress, length and speed are told in"""
    picked: int | None = None
    """places of a sample whose logits are wanted, at most; None for all of them"""

    def of(self, name: str) -> int:
        """Places of a dimension, `picked` too; raises KeyError where the objective has no such one."""
        if name == "picked" and self.picked is not None:
            return self.picked
        return dict(self.positions)[name]

    @property
    def seen(self) -> int:
        """Places of all dimensions together."""
        return sum(count for _, count in self.positions)
