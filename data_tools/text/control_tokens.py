"""Which tokens of a `tokenizer.json` steer or enter as ids alone, and the same tokenizer without them.

The tokenizers library has a switch for this (`encode_special_tokens`), which is not enough: it leaves tokens that were
added without the mark `special`, and those that the model itself finds, as Unigram does where `</s>` is a piece of its
vocabulary, and BPE where merges lead to it.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron_patches.errors import Damaged
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
AS_IDS_ALONE = "trainyard_as_ids_alone"
"""key of a `tokenizer_config.json`: added tokens that are ordinary and still never made of text"""
SECRET = "\ufdd0"
"""how names begin that no text can hold by intention"""
_LISTS = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")


def read_config(path: Path) -> dict[str, Any]:
    """A `tokenizer_config.json`.

    Raises:
        TrainyardError: it is no JSON object.
    """
    return parse_object(read_bounded(path), printable(path))


def eos_token(config: Mapping[str, Any], origin: Path) -> str | None:
    """The token that a configuration names as the end, if it names one.

    Raises:
        Damaged: what it names is no token.
    """
    given = config.get("eos_token")
    token = token_content(given)
    if given is not None and token is None:
        raise Damaged(
            f"{printable(origin)}: eos_token is {shortened(repr(given), 60)}, expected a text such as "
            '"<|endoftext|>", an object {"content": "<|endoftext|>"}, or null; write the one token that ends a document'
        )
    return token


def tokens_as_ids_alone(config: Mapping[str, Any], vocabulary: Mapping[str, int], origin: Path) -> set[str]:
    """Ordinary tokens that text must not become, whatever is asked for: they are put in as ids.

    Raises:
        Damaged: the list is none, or names what the vocabulary lacks.
    """
    given = config.get(AS_IDS_ALONE, [])
    wrong = next((each for each in given if each not in vocabulary), None) if _is_list_of_texts(given) else given
    if wrong is not None:
        raise Damaged(
            f"{printable(origin)}: {AS_IDS_ALONE} has {shortened(repr(wrong), 60)}, expected tokens of the vocabulary; "
            "copy the folder again, or make it again with tools/tokenizer extend"
        )
    return set(given)


def _is_list_of_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)


def control_tokens(tokenizer: Mapping[str, Any], config: Mapping[str, Any], end_of_document: str | None) -> set[str]:
    """Tokens that text must not become.

    They are the added tokens marked `special`, those that the configuration gives a role, and the end of a document.
    Other added tokens, such as runs of spaces, are part of the vocabulary. A single character that the model itself
    has stays: without it, texts would lose it.
    """
    added = {each["content"]: bool(each.get("special")) for each in tokenizer.get("added_tokens") or ()}
    found = {content for content, special in added.items() if special}
    found |= {token for token in _named(config) if token in added}
    if end_of_document is not None:
        found.add(end_of_document)
    single = {token for token in found if len(token) == 1}
    return found - single.intersection(_vocabulary(tokenizer)) if single else found


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that a configuration names, by role, such as `bos_token`."""
    found = {role: token_content(config.get(role)) for role in _ROLES}
    return {role: token for role, token in found.items() if token is not None}


def secret_names(tokens: Iterable[str]) -> dict[str, str]:
    """Names for tokens that no text can hold by intention: random ones."""
    return {token: f"{SECRET}{secrets.token_hex(16)}" for token in sorted(tokens)}


def without_tokens(
    tokenizer: Mapping[str, Any], names: Mapping[str, str], vocabulary: Mapping[str, int]
) -> dict[str, Any]:
    """The same tokenizer, of the same ids, in which these tokens have other names.

    Args:
        names: the new name of each, from `secret_names`, so that no text becomes one of them.
        vocabulary: ids of all tokens.
    """
    tokens = set(names)
    model = dict(tokenizer["model"])
    pieces = model.get("vocab")
    if isinstance(pieces, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in pieces.items()}
    elif isinstance(pieces, list):  # Unigram: [piece, score]
        model["vocab"] = [[names.get(piece, piece), *score] for piece, *score in pieces]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if isinstance(model.get("merges"), list):
        model["merges"] = _without(model["merges"], tokens)
    given = tokenizer.get("added_tokens") or ()
    added = [{**each, "content": names.get(each["content"], each["content"])} for each in given]
    # Those that the model alone has would not be found by their names.
    alone = tokens - {each["content"] for each in given}
    added += [added_token(vocabulary[token], names[token]) for token in sorted(alone)]
    return {**tokenizer, "model": model, "added_tokens": added}


def added_token(number: int, content: str) -> dict[str, Any]:
    """An entry of `added_tokens` for a token that is found wherever a text spells it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The ids that a `tokenizer.json` states, of the model's pieces and of added tokens; empty where it states none."""
    try:
        pieces = tokenizer["model"]["vocab"]
        numbered = pieces if isinstance(pieces, dict) else {each[0]: number for number, each in enumerate(pieces)}
        stated = {**numbered, **{each["content"]: each["id"] for each in tokenizer.get("added_tokens") or ()}}
    except (KeyError, IndexError, TypeError):
        return {}
    return stated if set(map(type, stated.values())) == {int} and set(map(type, stated)) == {str} else {}


def _without(merges: list[Any], tokens: set[str]) -> list[Any]:
    """The merges that neither join nor make one of the tokens: pairs, or two pieces with a space between them."""
    pairs = merges
    if merges and isinstance(merges[0], str):
        pairs = [merge.split(" ", 1) for merge in merges]
    return [
        merge
        for merge, (left, right) in zip(merges, pairs, strict=True)
        if left + right not in tokens and left not in tokens and right not in tokens
    ]


def _vocabulary(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    vocabulary = tokenizer["model"].get("vocab") or ()
    return iter(vocabulary) if isinstance(vocabulary, dict) else (each[0] for each in vocabulary)


def _named(config: Mapping[str, Any]) -> Iterator[str]:
    """Tokens to which a configuration gives a role; what is no token there does not matter here."""
    for role in _ROLES:
        if (token := token_content(config.get(role))) is not None:
            yield token
    for key in _LISTS:
        given = config.get(key)
        for each in given.values() if isinstance(given, dict) else given if isinstance(given, list) else ():
            ordinary = isinstance(each, dict) and each.get("special") is False
            if not ordinary and (token := token_content(each)) is not None:
                yield token


def token_content(token: Any) -> str | None:
    """The text of a token that a configuration names, by itself or as an object with flags; None where it is none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
