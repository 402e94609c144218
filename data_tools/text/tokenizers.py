"""Tokenizers, loaded so that the same text gives the same ids in preprocessing, evaluation and generation.

No special token is ever added, whatever the tokenizer's own files ask for, and nothing is truncated or padded.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.manifest import (
    MANIFEST,
    content_id,
    read_manifest,
    record_file,
    refuse_invalid,
    verify_files,
)
from megatron_patches.errors import TrainyardError

END_OF_DOCUMENT_CANDIDATES = ("<|endoftext|>", "</s>")


class Tokenizer(ABC):
    """Text to token ids and back."""

    id: str
    """Id of its manifest, or the hash of its files."""
    name: str
    """Name of its folder or file."""
    vocab_size: int
    """Largest id it can give, plus one."""
    end_of_document: int | None
    """Id that ends a document; None if it has none."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts, each as `encode` gives them."""

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

    @property
    def present(self) -> list[Path]:
        """The one or two files."""
        return [self.model] if self.config is None else [self.model, self.config]


def find_tokenizer(path: Path) -> TokenizerFiles:
    """Finds the tokenizer in a folder, or takes a `.model` file.

    Raises:
        TrainyardError: there is none, or more than one SentencePiece model.
    """
    if path.is_file() and path.suffix == ".model":
        return TokenizerFiles(path, None, path.name)
    if not path.is_dir():
        raise TrainyardError(
            f"tokenizer {path} is neither a folder nor a .model file. Train one with tools/tokenizer train FILES "
            f"--output {path} --vocab-size N, or give the folder of an existing one"
        )
    if (path / "tokenizer.json").is_file():
        config = path / "tokenizer_config.json"
        return TokenizerFiles(path / "tokenizer.json", config if config.is_file() else None, path.resolve().name)
    models = sorted(path.glob("*.model"))
    if len(models) != 1:
        raise TrainyardError(
            f"tokenizer folder {path} has no tokenizer.json and {len(models)} .model files, expected one of either. "
            "A folder with vocab.json and merges.txt alone gets its tokenizer.json from transformers: "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    return TokenizerFiles(models[0], None, path.resolve().name)


def tokenizer_id(files: TokenizerFiles, allow_invalid: bool = False) -> str:
    """Id of the manifest beside the files if it is theirs, else the hash of the files alone. Loads no tokenizer.

    Raises:
        TrainyardError: the manifest was edited, marks the tokenizer invalid, or does not match its files.
    """
    folder = files.model.parent
    path = folder / MANIFEST
    if path.is_file():
        manifest = read_manifest(path)
        if manifest.kind == "tokenizer" and files.model.name in {file.path for file in manifest.files}:
            if not allow_invalid:
                refuse_invalid(manifest, path, "allow it: --allow-invalid, or data.allow_invalid of a run")
            if problems := verify_files(manifest, folder, hashes=True):
                raise TrainyardError(f"{'; '.join(problems)}. Restore the tokenizer's files, or train it again")
            return manifest.id
    return content_id("tokenizer", [], [record_file(file, folder) for file in files.present], {})


def load_tokenizer(path: Path, allow_invalid: bool = False) -> Tokenizer:
    """Loads a Hugging Face folder with a `tokenizer.json`, or a SentencePiece `.model` (the file or its folder).

    Raises:
        TrainyardError: there is none, its files are damaged or were changed after its manifest was written, or that
            marks it invalid.
    """
    files = find_tokenizer(path)
    identity = tokenizer_id(files, allow_invalid)
    if files.model.suffix == ".model":
        return SentencePieceTokenizer(files, identity)
    return HuggingFaceTokenizer(files, identity)


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`, through the tokenizers library."""

    def __init__(self, files: TokenizerFiles, identity: str) -> None:
        from tokenizers import Tokenizer as Library

        self.id = identity
        self.name = files.name
        try:
            self._library = Library.from_file(str(files.model))
        except Exception as error:  # the library raises nothing more specific
            raise TrainyardError(f"{files.model} is not a tokenizer ({error}); copy or train it again") from error
        # Both settings travel inside tokenizer.json and would cut or lengthen documents.
        self._library.no_truncation()
        self._library.no_padding()
        vocabulary: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.end_of_document = _end_of_document(files, vocabulary)

    def encode(self, text: str) -> list[int]:
        return self._library.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._library.decode(list(ids), skip_special_tokens=False)


def _end_of_document(files: TokenizerFiles, vocabulary: dict[str, int]) -> int | None:
    if files.config is not None:
        token = _eos_token(files.config)
        if token is not None and token not in vocabulary:
            raise TrainyardError(
                f"{files.config} names eos_token {token!r}, which {files.model.name} does not have. "
                "Correct the name, or add the token to the vocabulary"
            )
        if token is not None:
            return vocabulary[token]
    return next((vocabulary[token] for token in END_OF_DOCUMENT_CANDIDATES if token in vocabulary), None)


def _eos_token(config: Path) -> str | None:
    try:
        token: Any = json.loads(config.read_bytes()).get("eos_token")
    except ValueError as error:
        raise TrainyardError(f"{config} is not JSON ({error}); copy it again") from None
    return token["content"] if isinstance(token, dict) else token


class SentencePieceTokenizer(Tokenizer):
    """A `.model`, through the sentencepiece library."""

    def __init__(self, files: TokenizerFiles, identity: str) -> None:
        from sentencepiece import SentencePieceProcessor

        self.id = identity
        self.name = files.name
        try:
            self._library = SentencePieceProcessor(model_file=str(files.model))
        except (RuntimeError, OSError) as error:
            raise TrainyardError(
                f"{files.model} is not a SentencePiece model ({error}); copy or train it again"
            ) from error
        self.vocab_size = self._library.get_piece_size()
        self.end_of_document = self._find_end_of_document()

    def _find_end_of_document(self) -> int | None:
        if self._library.eos_id() >= 0:
            return self._library.eos_id()
        candidates = (self._library.piece_to_id(token) for token in END_OF_DOCUMENT_CANDIDATES)
        return next((token for token in candidates if token != self._library.unk_id()), None)

    def encode(self, text: str) -> list[int]:
        return self._library.encode(text, add_bos=False, add_eos=False)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self._library.decode(list(ids))
