"""A tokenizer whose texts a fast library encodes, for what makes more of texts than their ids."""

from collections.abc import Sequence

from data_tools.encoding.libraries import Library
from data_tools.text.tokenizer import Tokenizer


class FastTokenizer(Tokenizer):
    """The same tokenizer; `encode` and `encode_batch` ask the library.

    Args:
        reference: answers all else.
    """

    def __init__(self, reference: Tokenizer, library: Library) -> None:
        self._reference = reference
        self.given = library
        self.id = reference.id
        self.name = reference.name
        self.vocab_size = reference.vocab_size
        self.end_of_document = reference.end_of_document
        self.control_tokens = reference.control_tokens
        self.control_spellings = reference.control_spellings
        self.as_ids_alone = reference.as_ids_alone
        self.hidden_ids = reference.hidden_ids
        self.library = library.name

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [ids.tolist() for ids in self.given.encode(texts).each()]

    def tokens(self) -> dict[int, str]:
        return self._reference.tokens()

    def token_bytes(self) -> dict[int, bytes]:
        return self._reference.token_bytes()

    def decode(self, ids: Sequence[int]) -> str:
        return self._reference.decode(ids)
