"""The special tokens of a tokenizer, by the roles that its own files give them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_tools.text.control_tokens import named_tokens, read_config
from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer
from megatron_patches.foreign.files import is_file
from megatron_patches.foreign.printable import printable, shortened

ROLES = ("mask", "cls", "sep", "pad")
_NAMING = ("tokenizer_config.json", "special_tokens_map.json")
"""files beside a tokenizer that name tokens by their roles; the first that names one counts"""
_USUAL = {"mask": ("[MASK]", "<mask>"), "cls": ("[CLS]",), "sep": ("[SEP]",), "pad": ("[PAD]", "<pad>")}
"""what BERT, RoBERTa and T5 call them, where no file names a token for the role"""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of a tokenizer; None where it has no token for a role."""

    vocab_size: int
    """largest id that it can give, plus one"""
    special: frozenset[int] = frozenset()
    """ids that stand for no text of their own: they are never masked, and never stand for another token"""
    mask: int | None = None
    """what stands in the place of a masked token"""
    cls: int | None = None
    """what a text begins with"""
    sep: int | None = None
    """what a text ends with"""
    pad: int | None = None
    """what fills a sample up"""
    end_of_document: int | None = None
    """what ends a document in a stream"""
    absent: Mapping[str, str] = field(default_factory=dict)
    """tokens that its files name for a role, and its vocabulary lacks"""

    def definition(self) -> dict[str, Any]:
        """The ids that decide what a model is asked, as JSON."""
        return {**asdict(self), "special": sorted(self.special), "absent": sorted(self.absent)}


def special_tokens(path: Path, allow_invalid: bool = False) -> SpecialTokens:
    """Those of a tokenizer: a folder, or a SentencePiece `.model`.

    Roles are read from its `tokenizer_config.json`, else its `special_tokens_map.json`, else from the usual names of
    its special tokens.

    Raises:
        TrainyardError: there is no tokenizer, it is damaged, or it is marked invalid and that is not allowed.
    """
    return special_tokens_of(load_tokenizer(path, allow_invalid), find_tokenizer(path))


def special_tokens_of(tokenizer: Tokenizer, files: TokenizerFiles) -> SpecialTokens:
    """Those of a tokenizer that is loaded."""
    named = _named(files)
    vocabulary = {token: number for number, token in tokenizer.tokens().items()}
    special = tokenizer.special_ids | {vocabulary[token] for token in named.values() if token in vocabulary}
    found: dict[str, int | None] = {}
    for role in ROLES:
        usual = (name for name in _USUAL[role] if vocabulary.get(name) in tokenizer.special_ids)
        token = named.get(role) or next(usual, None)
        found[role] = None if token is None else vocabulary.get(token)
    absent = {role: token for role, token in named.items() if role in ROLES and token not in vocabulary}
    ending = tokenizer.end_of_document
    return SpecialTokens(tokenizer.vocab_size, special, **found, end_of_document=ending, absent=absent)


def _named(files: TokenizerFiles) -> dict[str, str]:
    """The tokens that a tokenizer's files name, by role, such as `mask`."""
    if not files.of_folder:  # what lies beside a single file may belong to another one
        return {}
    found: dict[str, str] = {}
    for path in (files.model.parent / name for name in reversed(_NAMING)):
        found |= named_tokens(read_config(path)) if is_file(path) else {}
    return {role.removesuffix("_token"): token for role, token in found.items()}


def role_problems(name: str, found: SpecialTokens, needed: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Why settings of a run cannot do with a tokenizer: a line for each that lacks a token.

    Args:
        name: of the tokenizer, as the run names it.
        needed: roles, by the setting that needs them.
    """
    for setting, roles in needed.items():
        missing = [role for role in roles if getattr(found, role) is None]
        if not missing:
            continue
        absent = {role: shortened(repr(token), 40) for role, token in found.absent.items() if role in missing}
        lacks = [f"{role}_token {token}" for role, token in absent.items()]
        why = f" (its files name {' and '.join(lacks)}, which its vocabulary does not have)" if lacks else ""
        keys = " and ".join(f"{role}_token" for role in missing)
        yield (
            f"tokenizer {printable(name)} has no {' and no '.join(missing)} token{why}, and {setting} needs "
            f"{'it' if len(missing) == 1 else 'them'}; name {keys} in its tokenizer_config.json, if "
            "it is a folder without manifest.json, or take a tokenizer that has one (tools/tokenizer train --kind "
            "wordpiece makes one)"
        )
