"""Which library encodes: the first of a table that takes the tokenizer and gives its ids to hard texts."""

from collections.abc import Callable, Mapping
from typing import Any

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.encoding.libraries import (
    FastLibrary,
    Fastokens,
    Gigatoken,
    Library,
    LibraryFailed,
    Reference,
    is_failure,
)
from data_tools.encoding.word_cuts import cuts_of
from data_tools.encoding.words import Words
from data_tools.text.control_tokens import added_token, secret_names
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.foreign.printable import printable, shortened


def _text(description: Mapping[str, Any]) -> str:
    import orjson

    return orjson.dumps(description).decode()


def _gigatoken(description: dict[str, Any], tokenizer: Tokenizer) -> Library:
    separator = secret_names(["separator"])["separator"]
    added = [*description["added_tokens"], added_token(tokenizer.vocab_size, separator)]
    text = _text({**description, "added_tokens": added})
    return Gigatoken(text, separator, tokenizer.vocab_size, Reference(tokenizer)).joining(HARD_TEXTS)


def _fastokens(description: dict[str, Any], tokenizer: Tokenizer) -> Library:
    return Fastokens(_text(description))


def _words(description: dict[str, Any], tokenizer: Tokenizer) -> Library:
    cuts = cuts_of(description)
    if cuts is None:
        raise LibraryFailed("cannot cut at spaces, of which an added token takes some")
    return Words(tokenizer, cuts)


FAST_LIBRARIES: Mapping[str, Mapping[str, FastLibrary]] = {
    "BPE": {"gigatoken": _gigatoken, "fastokens": _fastokens},
    "WordPiece": {Words.name: _words},
}
"""For each kind of model, the faster first. BPE of GPT-2, 18 MB on one core: files of 15 KB take gigatoken 0.11 s,
fastokens 0.09 s, `tokenizers` 6 s; lines of 44 bytes 0.30 s (joined), 0.40 s, 6 s. fastokens loads in 0.7 s, gigatoken
in 0.2 s, and fastokens refuses SentencePiece's BPE. Both refuse Unigram and WordPiece. A .model of SentencePiece has
its own library, which takes a tenth of the time that transformers takes."""


def choose_library(tokenizer: Tokenizer, name: str | None, tell: Callable[[str], None]) -> Library:
    """The fastest library that gives a tokenizer's own ids; the tokenizer's own where there is none.

    Args:
        name: the one to take, if it can be taken; None: the first that can.
        tell: hears why one was not taken.
    """
    reference = Reference(tokenizer)
    description = tokenizer.description
    if description is None or name == reference.name:
        return reference
    kind = _kind(description)
    libraries = FAST_LIBRARIES.get(kind, {})
    bare = {"added_tokens": [], **description, "post_processor": None, "truncation": None, "padding": None}
    names = [each for each in libraries if name in (None, each)]
    model = kind or "one whose ids are drawn"
    if name is not None and not names:
        tell(f"{name} is not used for {printable(tokenizer.name)}: it does not take its model ({model})")
    elif not libraries:
        tell(f"no fast library takes the model of {printable(tokenizer.name)} ({model}); {reference.name} encodes")
    for each in names or libraries:
        library, reason = _tried(libraries[each], bare, tokenizer, reference)
        if library is not None:
            return library
        tell(f"{each} is not used for {printable(tokenizer.name)}: {reason}")
    return reference


def _kind(description: Mapping[str, Any]) -> str:
    """The kind of model; none where ids are drawn."""
    model = description["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "")
    return "" if model.get("dropout") else kind


def _tried(
    load: FastLibrary, description: dict[str, Any], tokenizer: Tokenizer, reference: Reference
) -> tuple[Library | None, str]:
    """The library, or why it is not taken."""
    try:
        library = load(description, tokenizer)
        given = library.encode(HARD_TEXTS)
    except LibraryFailed as error:
        return None, f"it {error}"
    except BaseException as error:
        if isinstance(error, MemoryError) or not is_failure(error):
            raise
        return None, f"it does not take the tokenizer ({shortened(error, 200)})"
    for number, (text, ids) in enumerate(zip(HARD_TEXTS, given.each(), strict=True)):
        if ids.tolist() != tokenizer.encode(text):
            return None, f"it gives hard text {number} ({shortened(ascii(text), 60)}) other ids than {reference.name}"
    return library, ""
