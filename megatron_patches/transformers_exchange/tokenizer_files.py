"""The tokenizer of an export: files from which `AutoTokenizer.from_pretrained` gives the ids that the run trained on.

A run's tokenizer adds no token to a text, so what would add one (`post_processor`) is left out, and so is what cuts or
pads. The class is always the general one: those of models would build a vocabulary's splitting anew by rules of theirs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.text.control_tokens import AS_IDS_ALONE, named_tokens, read_config
from data_tools.text.hugging_face_tokenizer import LARGEST_FILE, serialized
from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Refused
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.transformers_exchange.sentencepiece_json import converted_model

TOKENIZER_FILE, SETTINGS_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
LARGEST_TEMPLATE = 1 << 20
"""bytes; the longest in use have 20 kB"""
_CLASS = "PreTrainedTokenizerFast"
"""loads a tokenizer.json as it is, under transformers 4 and 5"""
_KEPT = ("additional_special_tokens", "extra_special_tokens", "chat_template", AS_IDS_ALONE)
"""keys of a `tokenizer_config.json` beside roles that say nothing of how text is cut, and run nothing"""
_ADDS_TOKENS = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")


@dataclass(frozen=True)
class ExportedTokenizer:
    """Contents of the files."""

    description: bytes
    """`tokenizer.json`"""
    settings: Mapping[str, Any]
    """`tokenizer_config.json`"""
    template: bytes | None
    """`chat_template.jinja`; None where the tokenizer has none, or has it in its settings"""
    fixed: tuple[str, ...]
    """pieces that a text which spells them always becomes; looked at when ids are compared"""


def exported_tokenizer(files: TokenizerFiles, tokenizer: Tokenizer, positions: int) -> ExportedTokenizer:
    """What is to be written.

    Args:
        positions: of the model; a longer text is warned of by transformers.

    Raises:
        Refused: it is a SentencePiece model of words or characters.
        Damaged: a file is not what a tokenizer has.
    """
    ending = {} if tokenizer.end_of_document is None else {"eos_token": tokenizer.tokens()[tokenizer.end_of_document]}
    of_all = {**ending, "tokenizer_class": _CLASS, "clean_up_tokenization_spaces": False, "model_max_length": positions}
    if files.model.suffix == ".model":
        model = converted_model(files.model)
        text = serialized(model.description, files.model).encode()
        return ExportedTokenizer(text, {**model.roles, **of_all}, None, model.fixed)
    given = {} if files.config is None else read_config(files.config)
    kept = {key: given[key] for key in _KEPT if key in given}
    text = _without_additions(read_bounded(files.model, LARGEST_FILE), files.model)
    beside = files.model.parent / TEMPLATE_FILE
    template = read_bounded(beside, LARGEST_TEMPLATE) if is_file(beside) else None
    return ExportedTokenizer(text, {**kept, **named_tokens(given), **of_all}, template, ())


def _without_additions(text: bytes, path: Path) -> bytes:
    """The same bytes, unless something in them adds, cuts or pads."""
    described = parse_object(text, printable(path))
    processor = _cleared(described.get("post_processor"))
    changed = {**described, "truncation": None, "padding": None, "post_processor": processor}
    same = all(described.get(key) == changed[key] for key in ("truncation", "padding", "post_processor"))
    return text if same else serialized(changed, path).encode()


def _cleared(processor: Any) -> Any:
    """A post-processor without those that add tokens; what is left only says where in the text a token came from."""
    if not isinstance(processor, dict):
        return processor
    if processor.get("type") in _ADDS_TOKENS:
        return None
    if processor.get("type") == "Sequence":
        kept = [each for each in map(_cleared, processor.get("processors") or ()) if each is not None]
        return {**processor, "processors": kept} if kept else None
    return processor


def write_tokenizer_files(exported: ExportedTokenizer, folder: Path) -> None:
    """Writes the files into a folder that is being made."""
    write_atomically(folder / TOKENIZER_FILE, exported.description)
    settings = json.dumps(exported.settings, ensure_ascii=False, indent=2) + "\n"
    write_atomically(folder / SETTINGS_FILE, settings.encode())
    if exported.template is not None:
        write_atomically(folder / TEMPLATE_FILE, exported.template)


def compare_tokenizers(tokenizer: Tokenizer, folder: Path, text: NDArray[np.int64], fixed: Sequence[str] = ()) -> None:
    """Loads the folder's tokenizer as everybody does, and encodes hard texts and the card's with both.

    What spells a control token is cut out before: to a run it is text, to transformers it is the token, as chats need.

    Args:
        text: samples of the card, int64 `[samples, positions]`.
        fixed: further spellings to look at.

    Raises:
        Refused: an id differs, or a text ends with another token.
    """
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    if theirs.eos_token_id != tokenizer.end_of_document:
        raise Refused(
            f"the tokenizer of the export ends texts with id {theirs.eos_token_id}, that of the run with "
            f"{tokenizer.end_of_document}; correct eos_token in its tokenizer_config.json"
        )
    control = _spelled(tokenizer, theirs)
    texts = [*HARD_TEXTS, *(f"a{each}b {each} {each}{each}" for each in fixed), *map(tokenizer.decode, text.tolist())]
    for each in (_without(given, control) for given in texts):
        ours, found = tokenizer.encode(each), theirs(each, verbose=False)["input_ids"]
        if ours != found:
            raise Refused(_told(each, ours, found))


def _told(text: str, ours: Sequence[int], theirs: Sequence[int]) -> str:
    pairs = zip([*ours, None], [*theirs, None], strict=False)
    place = next(place for place, (one, other) in enumerate(pairs) if one != other)
    return (
        f"the tokenizer of the export gives other ids than the run's: of '{shortened(text, 60)}' token {place:,} is "
        f"{_at(theirs, place)} for {_at(ours, place)}. transformers cannot express this tokenizer; convert it to a "
        "tokenizer.json and train with that"
    )


def _at(ids: Sequence[int], place: int) -> str:
    return str(ids[place]) if place < len(ids) else "none"


def _spelled(tokenizer: Tokenizer, theirs: Any) -> list[str]:
    """What either of them takes for a token and not for text, the longest first."""
    names = tokenizer.tokens()
    found = {*theirs.all_special_tokens, *tokenizer.control_tokens, *(names[each] for each in tokenizer.hidden_ids)}
    return sorted(filter(None, found), key=lambda token: (-len(token), token))


def _without(text: str, tokens: Sequence[str]) -> str:
    """A text in which none of the tokens is spelled, also not by what stood around another."""
    while any(token in text for token in tokens):
        for token in tokens:
            text = text.replace(token, "")
    return text
