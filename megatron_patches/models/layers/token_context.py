"""What a token knows beside its neighbours: its place, and what it sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, VISIBLE, AttentionKind, ModelInputs
from megatron_patches.models.attention.pattern import CAUSAL, FULL, AttentionPattern, Ranges
from megatron_patches.models.attention.segments import SegmentsOfPass


@dataclass(frozen=True)
class TokenContext:
    """`positions` is int64 `[batch, sequence]`; None means 0 ... sequence - 1."""

    pattern: AttentionPattern
    positions: Tensor | None = None


class ContextReader:
    """Which of the declared fields a token's context is made of, and how; one for all layers of a rank."""

    def __init__(self, inputs: ModelInputs) -> None:
        self._inputs = inputs
        self._segments = SegmentsOfPass(causal=inputs.attention == "causal_documents")

    @property
    def names(self) -> tuple[str, ...]:
        """The fields to be read, in the order that `read` takes them in."""
        return tuple(name for name in self._inputs.names if name in _OF_A_CONTEXT)

    def read(self, tensors: Sequence[Tensor], layer: object) -> TokenContext:
        """The context that the tensors of these fields say; `layer` asks, once for each micro-batch."""
        by_name = dict(zip(self.names, tensors, strict=True))
        if DOCUMENTS.name in by_name:
            pattern: AttentionPattern = self._segments.of(by_name[DOCUMENTS.name], layer)
        else:
            pattern = _PATTERNS[self._inputs.attention](by_name)
        return TokenContext(pattern, by_name.get(POSITIONS.name))


_OF_A_CONTEXT = frozenset(field.name for field in (POSITIONS, VISIBLE, DOCUMENTS))

_PATTERNS: dict[AttentionKind, Callable[[dict[str, Tensor]], AttentionPattern]] = {
    "full": lambda fields: FULL,
    "causal": lambda fields: CAUSAL,
    "ranges": lambda fields: Ranges(fields[VISIBLE.name]),
}
