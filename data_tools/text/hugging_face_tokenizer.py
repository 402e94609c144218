"""A `tokenizer.json`, through the tokenizers library."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from data_tools.text.control_tokens import (
    control_tokens,
    eos_token,
    read_config,
    secret_names,
    tokens_as_ids_alone,
    vocabulary_of,
    without_tokens,
)
from data_tools.text.spelling import spelling_of
from data_tools.text.tokenizer import END_OF_DOCUMENT_CANDIDATES, Tokenizer, TokenizerFiles
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

LARGEST_FILE = 256 << 20
"""bytes of a tokenizer.json; Gemma's, of 262,144 tokens, has 33 MB"""
LARGEST_ID = (1 << 31) - 1
"""what the int32 of an indexed dataset holds"""


class HuggingFaceTokenizer(Tokenizer):
    """A folder with a `tokenizer.json`.

    Args:
        parse_special: let text become control tokens, as Megatron-LM does.

    Raises:
        TrainyardError: a file is not what a tokenizer has.
    """

    library = "tokenizers"

    def __init__(self, files: TokenizerFiles, identity: str, parse_special: bool) -> None:
        self.id = identity
        self.name = files.name
        text = read_bounded(files.model, LARGEST_FILE)
        described = _parsed(text, files.model)
        self._path = files.model
        self._text = text.decode("utf-8-sig")
        self._vocabulary = vocabulary_of(described) or self._library.get_vocab(with_added_tokens=True)
        config = {} if files.config is None else read_config(files.config)
        if not self._renames(files, described, config, parse_special):
            # The library does not read the ids that the file states, or the file states none.
            self._vocabulary = self._library.get_vocab(with_added_tokens=True)
            if not self._renames(files, described, config, parse_special):
                raise Refused(
                    f"{printable(self._path)} cannot be read without its control tokens: others would get other ids. "
                    "Take --parse-special if no text holds them"
                )

    def _renames(
        self, files: TokenizerFiles, described: Mapping[str, Any], config: dict[str, Any], parse_special: bool
    ) -> bool:
        """Loads what encodes, in which tokens that no text becomes have secret names; False where the vocabulary is not
        the library's.
        """
        vocabulary = self._vocabulary
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        ending = _end_of_document(files, config, vocabulary)
        self.end_of_document = None if ending is None else vocabulary[ending]
        control = control_tokens(described, config, ending) & vocabulary.keys()
        self.control_tokens = {token: vocabulary[token] for token in sorted(control)}
        self._spelling = spelling_of(described.get("decoder"))
        self._added = {each["content"] for each in described.get("added_tokens") or ()}
        alone = set() if files.config is None else tokens_as_ids_alone(config, vocabulary, files.config)
        self.as_ids_alone = len(alone)
        hidden = alone if parse_special else alone | control
        names = secret_names(hidden)
        self.control_spellings = {token: names.get(token, token) for token in self.control_tokens}
        self.description = without_tokens(described, names, vocabulary) if names else described
        self.hidden_ids = frozenset(vocabulary[token] for token in hidden) - _unknown(described, vocabulary)
        self.special_ids = frozenset(self.control_tokens.values()) | self.hidden_ids
        self._encoder = self._load(serialized(self.description, self._path)) if names else self._library
        if not 0 < self.vocab_size <= LARGEST_ID:
            raise Damaged(f"{printable(files.model)} has {self.vocab_size:,} ids; copy or train it again")
        # One by one: the library's whole vocabulary as a dict takes four times as long, 0.1 s for 50,000 tokens.
        given = map(self._encoder.token_to_id, [names.get(token, token) for token in vocabulary])
        return list(given) == list(vocabulary.values())

    @cached_property
    def _library(self) -> Any:
        """The tokenizer under its own names, which decodes."""
        return self._load(self._text)

    def _load(self, text: str) -> Any:
        from tokenizers import Tokenizer as Library

        with _library_errors(self._path):
            library = Library.from_str(text)
            # Both settings travel inside tokenizer.json and would cut or lengthen documents.
            library.no_truncation()
            library.no_padding()
        return library

    def encode(self, text: str) -> list[int]:
        with _library_errors(self._path):
            return self._encoder.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with _library_errors(self._path):
            return [each.ids for each in self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)]

    def tokens(self) -> dict[int, str]:
        return {number: token for token, number in self._vocabulary.items()}

    def token_bytes(self) -> dict[int, bytes]:
        if self._spelling is None:
            raise Refused(
                f"{printable(self._path)}: its decoder does not say which bytes a token stands for (those of "
                "byte-level vocabularies and of SentencePiece do); leave out filters of characters"
            )
        return {number: self._spelled(token) for number, token in self.tokens().items()}

    def _spelled(self, token: str) -> bytes:
        assert self._spelling is not None
        if token in self.control_tokens:
            return b""
        return token.encode("utf-8") if token in self._added else self._spelling(token)

    def decode(self, ids: Sequence[int]) -> str:
        with _library_errors(self._path):
            return self._library.decode(list(ids), skip_special_tokens=False)


@contextmanager
def _library_errors(path: Path) -> Iterator[None]:
    """The library raises plain Exception, and where its Rust panics, a BaseException that cannot be imported."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise Damaged(f"{printable(path)} is not a tokenizer ({shortened(error)}); copy or train it again") from error


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    """The object of a `tokenizer.json`: a fast parser first, and for what it refuses the one that says what is wrong.

    Raises:
        Damaged: it is none.
    """
    import orjson

    try:
        described = orjson.loads(text)
    except orjson.JSONDecodeError:
        described = None
    return described if isinstance(described, dict) else parse_object(text, printable(path))


def _unknown(described: Mapping[str, Any], vocabulary: Mapping[str, int]) -> set[int]:
    """The id of what the vocabulary lacks, which any text may become."""
    model = described["model"]
    named = vocabulary.get(model["unk_token"]) if isinstance(model.get("unk_token"), str) else model.get("unk_id")
    return set() if named is None else {named}


def serialized(description: Mapping[str, Any], path: Path) -> str:
    """The text of a `tokenizer.json`.

    Raises:
        Damaged: it holds what UTF-8 cannot.
    """
    import orjson

    try:
        return orjson.dumps(description).decode()
    except orjson.JSONEncodeError as error:
        raise Damaged(f"{printable(path)} is not a tokenizer ({error}); copy or train it again") from error


def _end_of_document(files: TokenizerFiles, config: dict[str, Any], vocabulary: dict[str, int]) -> str | None:
    if files.config is not None and (token := eos_token(config, files.config)) is not None:
        if token not in vocabulary:
            raise TrainyardError(
                f"{printable(files.config)} names eos_token '{shortened(token)}', which {files.model.name} does not "
                "have. Correct the name, or add the token to the vocabulary"
            )
        return token
    return next((token for token in END_OF_DOCUMENT_CANDIDATES if token in vocabulary), None)
