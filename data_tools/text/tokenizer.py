"""What a tokenizer is to the rest: text to token ids and back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END_OF_DOCUMENT_CANDIDATES = ("<|endoftext|>", "</s>")


class Tokenizer(ABC):
    """Text to token ids and back.

    Text is text: what spells a control token in it, such as `<|endoftext|>`, is encoded like any other word, so that
    the author of a document cannot decide where the model sees its end. Control tokens enter as ids.
    """

    id: str
    """Id of its manifest, or the hash of its files."""
    name: str
    """Name of its folder or file."""
    vocab_size: int
    """Largest id it can give, plus one."""
    end_of_document: int | None
    """Id that ends a document; None if it has none."""
    control_tokens: Mapping[str, int] = {}
    """Ids of the tokens that no text becomes, by their text."""
    control_spellings: Mapping[str, str] = {}
    """What in a text becomes each of them all the same: a secret, for texts that a program has put together. It differs
    from one loading of a tokenizer to the next."""
    as_ids_alone: int = 0
    """Tokens of its vocabulary that are no control tokens and still never made of text."""
    hidden_ids: frozenset[int] = frozenset()
    """Ids that no text becomes, where the tokenizer knows them."""
    special_ids: frozenset[int] = frozenset()
    """Ids that stand for no text of their own: control tokens, and of SentencePiece what its vocabulary lacks."""
    library: str
    """The distribution that encodes: `tokenizers`, `sentencepiece`."""
    description: Mapping[str, Any] | None = None
    """A `tokenizer.json` of the same ids where tokens that no text becomes have secret names, for other libraries."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts, each as `encode` gives them."""

    @abstractmethod
    def tokens(self) -> dict[int, str]:
        """What each id stands for, as the tokenizer writes it; ids that stand for nothing are left out."""

    @abstractmethod
    def token_bytes(self) -> dict[int, bytes]:
        """The bytes of UTF-8 that each id stands for within a text; none for control tokens, which are no text.

        The space that some tokenizers put before a text, and take away again, counts as one.

        Raises:
            TrainyardError: which bytes a token stands for depends on its neighbours, or is not known.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""


@dataclass(frozen=True)
class TokenizerFiles:
    """The files that decide what a tokenizer does."""

    model: Path
    """`tokenizer.json`, or SentencePiece's `.model`."""
    config: Path | None
    """`tokenizer_config.json` beside a `tokenizer.json`."""
    name: str
    of_folder: bool = True
    """Whether a folder was named, so that what else lies in it belongs to the tokenizer."""

    @property
    def present(self) -> list[Path]:
        """The one or two files."""
        return [self.model] if self.config is None else [self.model, self.config]
