"""What preprocessing is asked to do with arithmetic: tokens for products, and made-up documents."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from data_tools.domain_tokens.arithmetic_documents import spread
from data_tools.domain_tokens.expressions import Mode
from data_tools.domain_tokens.injection import Injection, injection_with
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError


class CountableDocuments(Protocol):
    """Documents of sources that can be read again."""

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """The texts of each."""

    def count(self) -> int:
        """How many there are, by reading all of them once."""


@dataclass(frozen=True)
class ArithmeticRequest:
    """Which expressions become tokens, and how many documents are made up; by default neither."""

    inject: Mode | None = None
    """Which expressions become tokens of the multiplication table."""
    synthetic_documents: int = 0
    """Made-up documents of multiplication facts, spread evenly over the others."""
    seed: int | None = None
    """What they follow from; 0 where it is not given."""

    @property
    def drawn_from(self) -> int:
        """The seed of the made-up documents."""
        return self.seed or 0

    def check(self, json_keys: Sequence[str]) -> None:
        """Raises TrainyardError if documents cannot be made up for these keys."""
        if self.synthetic_documents < 0:
            raise TrainyardError(f"{self.synthetic_documents} made-up documents were asked for; give 0 or more")
        if self.seed is not None and not self.synthetic_documents:
            raise TrainyardError(f"--seed {self.seed} has no effect without --synthetic-arithmetic; leave it out")
        if self.synthetic_documents and len(json_keys) != 1:
            raise TrainyardError(
                f"made-up documents have one text, and --json-keys asks for {len(json_keys)}; preprocess one key at a "
                "time, or leave out --synthetic-arithmetic"
            )

    def injection(self, tokenizer: Tokenizer) -> Injection | None:
        """What makes ids of texts; None leaves it to the tokenizer.

        Raises:
            TrainyardError: the tokenizer has no tokens for it.
        """
        return None if self.inject is None else injection_with(tokenizer, self.inject)

    def with_synthetic(self, documents: CountableDocuments) -> Iterable[tuple[str, ...]]:
        """The documents, with made-up ones among them if they are asked for.

        The sources are read twice then: how many documents they have must be known before the first one, since progress
        in bytes jumps where files are small or compressed, and what was spread by it would come in heaps.
        """
        if not self.synthetic_documents:
            return documents
        return spread(documents, documents.count(), self.synthetic_documents, self.drawn_from)

    def arguments(self) -> list[str]:
        """The words of a command line that ask for this."""
        words = [] if self.inject is None else ["--inject", self.inject]
        if self.synthetic_documents:
            words += ["--synthetic-arithmetic", str(self.synthetic_documents), "--seed", str(self.drawn_from)]
        return words
