"""Files of prompts, and the lines that are written of them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_patches.errors import Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import kind_of, parse_object
from megatron_patches.foreign.printable import printable

if TYPE_CHECKING:  # torch
    from megatron_patches.generation.continuation import Continuation

_KEYS = ("prompt", "text")


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: each line of a `.txt`; the text at `prompt` or `text` of each object of a `.jsonl`.

    Raises:
        TrainyardError: the file is missing, has another ending, holds no prompt, or is not UTF-8; an object has
            neither key or both, or no text there.
    """
    if path.suffix not in (".txt", ".jsonl"):
        raise Refused(f"{printable(path)}: a file of prompts ends with .txt (one a line) or .jsonl (objects)")
    lines = _lines(path)
    if path.suffix == ".jsonl":
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        prompts = [_prompt_of(line, f"{printable(path)}:{number}") for number, line in numbered]
    else:
        prompts = lines
    if not prompts:
        raise Refused(f"{printable(path)} holds no prompt; write one a line")
    return prompts


def _lines(path: Path) -> list[str]:
    content = read_bounded(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Refused(f"{printable(path)}:{line} is not UTF-8 text; convert it with iconv -t UTF-8") from None
    lines = text.split("\n")
    if not lines[-1]:  # what follows the last line end
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _prompt_of(line: str, where: str) -> str:
    found = parse_object(line, where)
    present = [key for key in _KEYS if key in found]
    if len(present) != 1:
        raise Refused(f"{where} has {'both keys' if present else 'neither'} of {' and '.join(_KEYS)}; give it one")
    prompt = found[present[0]]
    if not isinstance(prompt, str):
        raise Refused(f"{where}: {present[0]} is {kind_of(prompt)}, expected a text; correct it")
    return prompt


def as_line(prompt: str, continuation: "Continuation", ascii_alone: bool) -> str:
    """One JSON object on a line; `ascii_alone` writes all other characters as escapes, for any terminal."""
    told = {
        "prompt": prompt,
        "text": continuation.text,
        "tokens": continuation.tokens,
        "ending": continuation.ending,
        "seed": continuation.seed,
    }
    return json.dumps(told, ensure_ascii=ascii_alone)
