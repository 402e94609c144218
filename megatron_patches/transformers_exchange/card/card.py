"""The card of an export or import: what was compared, and every figure. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Refused

CARD_FILE = "card.json"

LARGEST_DIFFERENCE = 1e-4
"""of two logits for one token. The same sums in two orders in fp32 differ by 2e-6 to 3e-5 in the tests' models, whose
logits reach 16; the smallest of their exporters' mistakes, an epsilon of 1e-5 for 1e-6, makes 4e-3"""
NEAR_TIE = 1e-3
"""first two logits that are closer than this may change places by rounding; ten times the largest difference"""
LEAST_POSITIONS = 512
"""teacher-forced positions, at least"""
LONGEST_SAMPLE = 2048
"""positions; a longer model's further ones are not run: scores of attention grow with the square"""
GREEDY_TOKENS = 32
"""continued without sampling, at most; fewer where the model has not as many positions"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TensorFigures(_Part):
    """Tensors that went there and back bit for bit."""

    ours: int
    """parameters of the checkpoint"""
    theirs: int
    """tensors of the folder that hold them"""
    filled: int
    """tensors of the folder with one value throughout, which do nothing"""
    ignored: int
    """buffers of old versions, which are no parameters"""
    elements: int
    """numbers in the folder's tensors, `ignored` left out"""
    dtype: str
    """F32, BF16 or F16"""


class LogitFigures(_Part):
    """fp32 logits of both at the same teacher-forced positions."""

    positions: int
    vocabulary: int
    largest_difference: float
    largest_logit: float
    """in absolute value: what the difference is to be seen beside"""
    equal_argmax: int
    """positions whose likeliest token is the same"""
    near_ties: int
    """positions whose likeliest token differs, the first two logits being within `NEAR_TIE`"""


class GreedyFigures(_Part):
    """A continuation by transformers' own `generate`, against our likeliest token at each place of it."""

    prompt: int
    """tokens of the prompt"""
    tokens: int
    """that were generated"""
    equal: int
    """of them, before the comparison ended"""
    near_tie: float | None
    """distance of our first two logits where the tokens part; None where they do not"""


class MaskedFigures(_Part):
    """Masked tokens of the text, each filled in by its likeliest token."""

    tokens: int
    equal: int
    near_ties: int
    """filled in otherwise, our first two logits being within `NEAR_TIE`"""


class PaddingFigures(_Part):
    """Texts of several lengths in one batch with an attention mask, beside each of them alone, by both models."""

    texts: int
    tokens: int
    """of all texts, padding left out"""
    sides: tuple[str, ...]
    """on which they were padded, one after another"""
    largest_difference: float
    """of two logits for one token"""


class Card(_Part):
    """What an export or import was shown to be."""

    command: str
    """that made it"""
    date: str
    """UTC, to the second"""
    commit: str | None
    """of this checkout, `+changes` where its files differ; None where it is not known"""
    versions: dict[str, str]
    """of python, torch, transformers and trainyard"""
    source: str
    """id of the checkpoint"""
    model_type: str
    class_name: str
    text: str
    text_sha256: str
    by_block: bool
    tensors: TensorFigures
    logits: LogitFigures
    greedy: GreedyFigures | None = None
    """of models that continue texts"""
    masked: MaskedFigures | None = None
    """of models that read whole texts"""
    padding: PaddingFigures | None = None
    """of the same"""

    def told(self) -> list[str]:
        """Lines for people."""
        tensors, logits = self.tensors, self.logits
        filled = f"; {tensors.filled} filled" if tensors.filled else ""
        ties = f" ({logits.near_ties} near ties)" if logits.near_ties else ""
        return [
            f"tensors  {tensors.theirs}, {tensors.elements:,} numbers ({tensors.dtype}), there and back bit for bit"
            f"{filled}",
            f"logits   at {logits.positions} positions differ by {logits.largest_difference:.1e} at most (largest: "
            f"{logits.largest_logit:.1f})",
            f"argmax   equal at {logits.equal_argmax} of {logits.positions} positions{ties}",
            *self._texts_told(),
            f"text     {self.text}",
            f"         sha256 of its token ids {self.text_sha256[:16]}...",
        ]

    def _texts_told(self) -> Iterator[str]:
        if (greedy := self.greedy) is not None:
            part = f", then a near tie ({greedy.near_tie:.1e})" if greedy.near_tie is not None else ""
            yield f"greedy   {greedy.equal} of {greedy.tokens} tokens equal after a prompt of {greedy.prompt}{part}"
        if (masked := self.masked) is not None:
            ties = f" ({masked.near_ties} near ties)" if masked.near_ties else ""
            yield f"masked   {masked.equal} of {masked.tokens} masked tokens are filled in alike{ties}"
        if (padding := self.padding) is not None:
            yield (
                f"padding  {' or '.join(padding.sides)} of {padding.texts} texts changes logits by "
                f"{padding.largest_difference:.1e} at most"
            )


class NotEqual(Refused):
    """Source and folder are not the same model: the message names the check, its figures, and where it failed."""

    def __init__(self, check: str, found: str) -> None:
        super().__init__(f"{check}: {found}")
        self.check = check
        """tensors, loading, logits, greedy, masked tokens or padding"""


def write_card(folder: Path, card: Card) -> None:
    """Writes `card.json` into a folder that is being made."""
    write_atomically(folder / CARD_FILE, (card.model_dump_json(indent=2) + "\n").encode())
