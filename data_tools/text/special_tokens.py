"""The special tokens of a tokenizer, by the roles that its own files give them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.text.control_tokens import named_tokens, read_config
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of a tokenizer; None where it names no token for a role."""

    vocab_size: int
    """largest id that it can give, plus one"""
    special: frozenset[int] = frozenset()
    """ids that no text becomes: they are never masked, and never stand for another token"""
    mask: int | None = None
    """what stands in the place of a masked token"""
    cls: int | None = None
    """what a text begins with"""
    sep: int | None = None
    """what a text ends with"""
    pad: int | None = None
    """what fills a sample up"""

    def definition(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {**asdict(self), "special": sorted(self.special)}


def special_tokens(path: Path) -> SpecialTokens:
    """Those of the tokenizer in a folder.

    Raises:
        TrainyardError: there is no tokenizer, or it is damaged.
    """
    tokenizer, files = load_tokenizer(path), find_tokenizer(path)
    roles = named_tokens(read_config(files.config)) if files.config is not None else {}
    ids = {role.removesuffix("_token"): tokenizer.control_tokens.get(token) for role, token in roles.items()}
    special = frozenset(tokenizer.control_tokens.values()) | tokenizer.hidden_ids
    return SpecialTokens(tokenizer.vocab_size, special, ids.get("mask"), ids.get("cls"), ids.get("sep"), ids.get("pad"))
