"""What a token knows beside its neighbours: its place, and what it sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, VISIBLE, AttentionKind, ModelInputs
from megatron_patches.models.layers.attention_pattern import CAUSAL, FULL, AttentionPattern, Documents, Ranges


@dataclass(frozen=True)
class TokenContext:
    """`positions` is int64 `[batch, sequence]`; None means 0 ... sequence - 1."""

    pattern: AttentionPattern
    positions: Tensor | None = None


@dataclass(frozen=True)
class ContextReader:
    """Which of the declared fields a token's context is made of, and how."""

    inputs: ModelInputs

    @property
    def names(self) -> tuple[str, ...]:
        """The fields to be read, in the order that `read` takes them in."""
        return tuple(name for name in self.inputs.names if name in _OF_A_CONTEXT)

    def read(self, tensors: Sequence[Tensor]) -> TokenContext:
        """The context that the tensors of these fields say."""
        by_name = dict(zip(self.names, tensors, strict=True))
        return TokenContext(_PATTERNS[self.inputs.attention](by_name), by_name.get(POSITIONS.name))


_OF_A_CONTEXT = frozenset(field.name for field in (POSITIONS, VISIBLE, DOCUMENTS))


def _documents(fields: dict[str, Tensor], causal: bool) -> AttentionPattern:
    documents = fields[DOCUMENTS.name]
    return Documents(documents, documents, causal)


_PATTERNS: dict[AttentionKind, Callable[[dict[str, Tensor]], AttentionPattern]] = {
    "full": lambda fields: FULL,
    "causal": lambda fields: CAUSAL,
    "ranges": lambda fields: Ranges(fields[VISIBLE.name]),
    "documents": lambda fields: _documents(fields, causal=False),
    "causal_documents": lambda fields: _documents(fields, causal=True),
}
