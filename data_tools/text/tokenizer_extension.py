"""A tokenizer with more tokens: the ids that it had stay what they were, and new ones follow.

The new tokens are ordinary ones, so that decoding keeps them where it leaves special tokens out. Text that spells one
stays text here (`tokenizer_config.json` names them under `trainyard_as_ids_alone`); other programs, which do not know
that key, make tokens of such text. Where the first new id is chosen, each id before it that stands for nothing gets a
special token `<UNUSED_id>`, since the tokenizers library numbers added tokens without holes; so every program counts
the same vocabulary.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_tools.text.control_tokens import AS_IDS_ALONE, read_config
from data_tools.text.hugging_face_tokenizer import LARGEST_FILE
from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from data_tools.text.tokenizer_folder import write_tokenizer
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

LARGEST_LIST = 16 << 20
"""bytes of a file of tokens"""
LONGEST_TOKEN = 256
"""characters"""
KEPT_AS_THEY_ARE = ("chat_template.jinja", "special_tokens_map.json")
"""files beside a tokenizer.json that hold for the longer vocabulary as well"""
MOST_IDS = 1 << 20
"""ids of an extended vocabulary; the largest in use have about 262,000"""


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file, one a line.

    Raises:
        TrainyardError: it is missing, too large, not UTF-8, or has an empty line.
    """
    try:
        text = read_bounded(path, LARGEST_LIST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Damaged(f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,})") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if empty := [number for number, line in enumerate(lines, start=1) if not line.strip()]:
        raise TrainyardError(f"{printable(path)}, line {empty[0]} is empty; write one token on each line")
    return lines


def extend_tokenizer(
    source: Path,
    output: Path,
    tokens: Sequence[str],
    first_id: int | None = None,
    allow_invalid: bool = False,
    asked: Sequence[str] = (),
) -> Manifest:
    """Writes a tokenizer with more tokens, whose manifest names the old one as its parent.

    Args:
        source: folder with a `tokenizer.json`.
        output: folder to make; it appears when it is complete.
        tokens: in the order of their ids.
        first_id: id of the first of them; None takes the one behind the vocabulary.
        asked: words of the command line that named the tokens, for the manifest.

    Raises:
        TrainyardError: the folder exists, a token is none or is there already, an id is taken, or the tokenizers
            library would give other ids.
    """
    if output.exists():
        raise TrainyardError(f"{printable(output)} exists already; remove it, or choose another --output")
    files = find_tokenizer(source)
    if files.model.suffix == ".model":
        raise Refused(
            f"{printable(source)} is a SentencePiece model, whose pieces are fixed when it is trained; extend a "
            "tokenizer.json, or convert it with transformers: "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    old = load_tokenizer(source, allow_invalid)
    start = old.vocab_size if first_id is None else first_id
    _check_ids(old, start, len(tokens))
    unused = [f"<UNUSED_{number}>" for number in range(old.vocab_size, start)]
    _check_tokens(old, tokens, unused)
    config = {} if files.config is None else read_config(files.config)
    entries = [
        *(_entry(old.vocab_size + number, token, special=True) for number, token in enumerate(unused)),
        *(_entry(start + number, token, special=False) for number, token in enumerate(tokens)),
    ]
    facts: dict[str, JsonValue] = {
        "algorithm": "extended",
        "vocab_size": start + len(tokens),
        "end_of_document": old.end_of_document,
        "extends": {"id": old.id, "name": old.name, "vocab_size": old.vocab_size},
        "added_tokens": list(tokens),
        "first_added_id": start,
        "unused_ids": len(unused),
    }
    contents = {
        "tokenizer.json": json.dumps(_with_tokens(files, entries), ensure_ascii=False, indent=2) + "\n",
        "tokenizer_config.json": json.dumps(_configured(config, entries, tokens), ensure_ascii=False, indent=2) + "\n",
    }
    contents |= _kept(files.model.parent)
    command = ["tools/tokenizer", "extend", old.name, "--output", output.name, *asked]
    command += [] if first_id is None else ["--first-id", str(first_id)]

    def check(folder: Path) -> None:
        _compare(old, load_tokenizer(folder), tokens, start)

    return write_tokenizer(output, contents, facts, shlex.join(command), [old.id], check)


def _check_ids(old: Tokenizer, start: int, number: int) -> None:
    """Raises TrainyardError if this many tokens cannot have ids from this one on."""
    if not number:
        raise TrainyardError("no tokens to add; name some with --add, --add-file or --multiplication")
    if start < old.vocab_size:
        raise TrainyardError(
            f"--first-id {start:,} is taken: tokenizer {printable(old.name)} has ids up to {old.vocab_size - 1:,}; "
            f"give {old.vocab_size:,} or more, or leave it out"
        )
    if start + number > MOST_IDS:
        raise TrainyardError(f"{start + number:,} ids are more than {MOST_IDS:,}; choose a smaller --first-id")


def _check_tokens(old: Tokenizer, tokens: Sequence[str], unused: Sequence[str]) -> None:
    """Raises TrainyardError if the tokens cannot be added."""
    known, seen = set(old.tokens().values()), set[str]()
    for token in tokens:
        shown = f"token '{shortened(token, 60)}'"
        if not token or any(each.isspace() for each in token):
            raise TrainyardError(f"{shown} is empty or has white space; a token is a word such as <MUL_3_4_12>")
        if len(token) > LONGEST_TOKEN or printable(token) != token:
            raise TrainyardError(f"{shown} is longer than {LONGEST_TOKEN} characters, or one of them is not printable")
        if token in seen:
            raise TrainyardError(f"{shown} is given twice; give each once")
        if token in known or token in unused:
            raise TrainyardError(f"{shown} exists already in tokenizer {printable(old.name)}; leave it out")
        seen.add(token)
    if taken := known.intersection(unused):
        raise TrainyardError(
            f"tokenizer {printable(old.name)} has a token '{shortened(min(taken))}', a name of ids that stand for "
            "nothing; leave out --first-id"
        )


def _kept(folder: Path) -> dict[str, str]:
    """What else the folder says of the tokenizer, such as its chat template.

    Raises:
        TrainyardError: a file is too large or not UTF-8.
    """
    kept = {}
    for path in (folder / name for name in KEPT_AS_THEY_ARE):
        if is_file(path):
            try:
                kept[path.name] = read_bounded(path).decode()
            except UnicodeDecodeError as error:
                raise Damaged(f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,})") from None
    return kept


def _entry(number: int, token: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": number, "content": token, **flags}


def _with_tokens(files: TokenizerFiles, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    described = parse_object(read_bounded(files.model, LARGEST_FILE), printable(files.model))
    return {**described, "added_tokens": [*(described.get("added_tokens") or ()), *entries]}


def _configured(config: dict[str, Any], entries: Sequence[dict[str, Any]], tokens: Sequence[str]) -> dict[str, Any]:
    """The configuration with the new tokens: transformers reads `added_tokens_decoder` where there is one."""
    changed = {**config, AS_IDS_ALONE: [*config.get(AS_IDS_ALONE, []), *tokens]}
    if isinstance(config.get("added_tokens_decoder"), dict):
        added = {str(each["id"]): {key: each[key] for key in each if key != "id"} for each in entries}
        changed["added_tokens_decoder"] = {**config["added_tokens_decoder"], **added}
    return changed


def _compare(old: Tokenizer, new: Tokenizer, tokens: Sequence[str], start: int) -> None:
    """Raises Refused unless the new one has what the old one had, and the tokens behind it."""
    ids = new.tokens()
    kept = all(ids.get(number) == token for number, token in old.tokens().items())
    expected = {start + number: token for number, token in enumerate(tokens)}
    if not kept or new.vocab_size != start + len(tokens) or any(ids.get(each) != expected[each] for each in expected):
        raise Refused(
            f"the tokenizers library gives added tokens other ids in {printable(old.name)}: its vocabulary has holes "
            "or is not numbered from 0; number it without holes first"
        )
    for number, token in expected.items():
        if new.decode([number]) != token:
            raise Refused(
                f"id {number} of token '{shortened(token, 60)}' decodes as '{shortened(new.decode([number]), 60)}' in "
                f"{printable(old.name)}; take another spelling, in ASCII"
            )
    if old.end_of_document != new.end_of_document:
        raise Refused(
            f"with these tokens documents would end with id {new.end_of_document}, not {old.end_of_document}; leave "
            "out the token that ends documents elsewhere"
        )
