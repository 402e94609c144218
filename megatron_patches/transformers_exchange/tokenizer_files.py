"""The tokenizer of an export: files from which `AutoTokenizer.from_pretrained` gives the ids that the run trained on.

A run's tokenizer adds no token to a text, so what would add one (`post_processor`) is left out, and so is what cuts or
pads; where a run puts cls and sep around each text (`data.samples.wrapped`), the export's tokenizer does so. The class
is always the general one: classes of models would rebuild the splitting of text by rules of their own.
"""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.text.control_tokens import AS_IDS_ALONE, named_tokens, read_config, token_content
from data_tools.text.hugging_face_tokenizer import LARGEST_FILE, serialized
from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.models.interface.transformers_format import Task
from megatron_patches.transformers_exchange.sentencepiece_json import converted_model
from megatron_patches.transformers_exchange.tokenizer_roles import AROUND, roles_of, wrapping_processor

TOKENIZER_FILE, SETTINGS_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
LARGEST_TEMPLATE = 1 << 20
"""bytes; the longest in use have 20 kB"""
_CLASS = "PreTrainedTokenizerFast"
"""loads a tokenizer.json as it is, under transformers 4 and 5"""
_KEPT = ("additional_special_tokens", "extra_special_tokens", "chat_template", AS_IDS_ALONE)
"""keys of a `tokenizer_config.json` beside roles that say nothing of how text is cut, and run nothing"""
_LISTS = frozenset(("additional_special_tokens", "extra_special_tokens"))
_SIDES: Mapping[Task, str] = {"text-generation": "left", "fill-mask": "right"}
"""where texts of several lengths are padded: a model continues what stands last"""
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
    around: tuple[str, str] | None = None
    """tokens that it puts around each text"""


def exported_tokenizer(
    files: TokenizerFiles,
    tokenizer: Tokenizer,
    positions: int,
    vocabulary: int,
    task: Task = "text-generation",
    wrapped: bool = False,
) -> ExportedTokenizer:
    """What is to be written. Tokens that a configuration names and the model has no id for are left out: transformers
    would add them, with ids that no row of the embedding stands for.

    Args:
        positions: of the model; a longer text is warned of by transformers.
        vocabulary: token ids that the model knows.
        task: of the model.
        wrapped: each text that it was trained on stood between cls and sep.

    Raises:
        Refused: a text is to stand between tokens that the model lacks; it is a SentencePiece model of words or
            characters; or texts end with an id that the model lacks.
        Damaged: a file is not what a tokenizer has.
    """
    end = tokenizer.end_of_document
    if end is not None and end >= vocabulary:
        raise Refused(
            f"{printable(files.model)} ends texts with id {end:,}, and the model has those below {vocabulary:,}; name "
            "one of these in eos_token of its tokenizer_config.json"
        )
    known = {token for number, token in tokenizer.tokens().items() if number < vocabulary}
    of_all = {
        **({} if end is None else {"eos_token": tokenizer.tokens()[end]}),
        "tokenizer_class": _CLASS, "clean_up_tokenization_spaces": False, "model_max_length": positions,
        "padding_side": _SIDES[task],
    }  # fmt: skip
    config = files.model.parent / SETTINGS_FILE
    given = read_config(config) if files.of_folder and is_file(config) else {}
    template = _template_beside(files)
    if files.model.suffix == ".model":
        model = converted_model(files.model)
        text = serialized(model.description, files.model).encode()
        roles, fixed = model.roles, model.fixed
        kept = _kept(given, ("chat_template",), known, config)
    else:
        text = _without_additions(read_bounded(files.model, LARGEST_FILE), files.model)
        roles, fixed = named_tokens(given), ()
        kept = _kept(given, _KEPT, known, config)
    roles = {**roles, **(roles_of(files, tokenizer) if task == "fill-mask" else {})}
    named = {role: token for role, token in roles.items() if token in known}
    around = _around(named, files) if wrapped else None
    if around is not None:
        described = parse_object(text, printable(files.model))
        ids = {token: number for number, token in tokenizer.tokens().items()}
        processor = wrapping_processor(described, *around, ids)
        text = serialized({**described, "post_processor": processor}, files.model).encode()
    return ExportedTokenizer(text, {**kept, **named, **of_all}, template, fixed, around)


def _around(named: Mapping[str, str], files: TokenizerFiles) -> tuple[str, str]:
    if missing := [role for role in AROUND if role not in named]:
        raise Refused(
            f"{printable(files.model)} names no {' and no '.join(missing)} that the model knows, and "
            "data.samples.wrapped puts them around each text; name them in its tokenizer_config.json"
        )
    first, last = (named[role] for role in AROUND)
    return first, last


def _template_beside(files: TokenizerFiles) -> bytes | None:
    path = files.model.parent / TEMPLATE_FILE
    return read_bounded(path, LARGEST_TEMPLATE) if files.of_folder and is_file(path) else None


def _kept(given: Mapping[str, Any], keys: Sequence[str], known: Set[str], origin: Path) -> dict[str, Any]:
    """Keys of a `tokenizer_config.json` that go along, of lists of tokens those that are known."""
    kept = {key: given[key] for key in keys if given.get(key) is not None}
    for key in _LISTS & kept.keys():
        kept[key] = _known(kept[key], known, f"{printable(origin)}: {key}")
    if "chat_template" in kept and not isinstance(kept["chat_template"], str | list):
        raise Damaged(f"{printable(origin)}: chat_template is {_shown(kept['chat_template'])}, expected a text")
    return kept


def _known(tokens: Any, known: Set[str], told: str) -> Any:
    """Those of a list of tokens, or of an object with a name for each, that are known."""
    if isinstance(tokens, dict):
        return {name: token for name, token in tokens.items() if token_content(token) in known}
    if isinstance(tokens, list):
        return [token for token in tokens if token_content(token) in known]
    raise Damaged(f"{told} is {_shown(tokens)}, expected a list of tokens")


def _shown(value: Any) -> str:
    return shortened(repr(value), 60)


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


def compare_tokenizers(
    tokenizer: Tokenizer,
    folder: Path,
    text: NDArray[np.int64],
    fixed: Sequence[str] = (),
    around: tuple[str, str] | None = None,
) -> None:
    """Loads the folder's tokenizer as everybody does, and encodes hard texts and the card's with both.

    What spells a control token is cut out before: to a run it is text, to transformers it is the token, as chats need.

    Args:
        text: samples of the card, int64 `[samples, positions]`.
        fixed: further spellings to look at.
        around: tokens that the folder's puts around each text.

    Raises:
        Refused: transformers does not load it, a token or an id differs, or a text ends with another token.
    """
    theirs = _loaded(folder)
    if theirs.eos_token_id != tokenizer.end_of_document:
        raise Refused(
            f"the tokenizer of the export ends texts with id {theirs.eos_token_id}, that of the run with "
            f"{tokenizer.end_of_document}; correct eos_token in its tokenizer_config.json"
        )
    ours_by_token = {token: number for number, token in tokenizer.tokens().items()}
    for token, number in sorted(theirs.get_added_vocab().items()):
        if ours_by_token.get(token) != number:
            raise Refused(
                f"the tokenizer of the export has the token {shortened(token, 60)} with id {number:,}, and that of the "
                "run has not; leave it out of its tokenizer_config.json"
            )
    control = _spelled(tokenizer, theirs)
    texts = [*HARD_TEXTS, *(f"a{each}b {each} {each}{each}" for each in fixed), *map(tokenizer.decode, text.tolist())]
    for each in (_without(given, control) for given in texts):
        first, last = ([ours_by_token[token]] for token in around) if around else ([], [])
        ours, found = [*first, *tokenizer.encode(each), *last], theirs(each, verbose=False)["input_ids"]
        if ours != found:
            raise Refused(_told(each, ours, found))


def _loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its many readers of files raise
        raise Refused(f"transformers does not load the tokenizer of the export: {shortened(error, 300)}") from error


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
