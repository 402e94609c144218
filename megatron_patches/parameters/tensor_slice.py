"""Where a rank's tensor lies in the whole parameter: what initialisation, norms and checkpoints all go by."""

from dataclasses import dataclass
from math import prod

Range = tuple[int, int]


@dataclass(frozen=True)
class TensorSlice:
    """A box of a global tensor: `box[d]` is the half-open range of dimension d that is held here.

    The local tensor has the box's elements in row-major order; its own shape may differ (a fused matrix can be one
    two-dimensional tensor here and a box of three dimensions globally).
    """

    global_shape: tuple[int, ...]
    box: tuple[Range, ...]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> "TensorSlice":
        """The slice that is everything."""
        return cls(shape, tuple((0, size) for size in shape))

    @classmethod
    def cut(cls, shape: tuple[int, ...], dimension: int, part: int, parts: int) -> "TensorSlice":
        """Part number `part` of `parts` equal parts along one dimension.

        Raises AssertionError if the parts are not equal; configurations are checked long before.
        """
        size, rest = divmod(shape[dimension], parts)
        assert rest == 0, f"dimension {dimension} of {shape} does not divide into {parts} parts"
        box = [(0, extent) for extent in shape]
        box[dimension] = (part * size, (part + 1) * size)
        return cls(shape, tuple(box))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of the box in each dimension."""
        return tuple(stop - start for start, stop in self.box)

    @property
    def elements(self) -> int:
        """Number of elements in the box."""
        return prod(self.shape)

    def intersection(self, other: "TensorSlice") -> tuple[Range, ...] | None:
        """The common box in global coordinates, or None where the two do not meet."""
        ranges = []
        for (start, stop), (other_start, other_stop) in zip(self.box, other.box, strict=True):
            low, high = max(start, other_start), min(stop, other_stop)
            if low >= high:
                return None
            ranges.append((low, high))
        return tuple(ranges)

    def local(self, box: tuple[Range, ...]) -> tuple[slice, ...]:
        """Indices into a tensor of `self.shape` for a box given in global coordinates."""
        return tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(box, self.box, strict=True))
