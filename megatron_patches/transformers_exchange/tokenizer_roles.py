"""The tokens of an encoder's tokenizer by role, and how transformers puts cls and sep around a text. Torch-free."""

from collections.abc import Mapping
from typing import Any

from data_tools.text.special_tokens import ROLES, special_tokens
from data_tools.text.tokenizer import Tokenizer, TokenizerFiles

AROUND = ("cls_token", "sep_token")
"""roles of the tokens around a text"""


def roles_of(files: TokenizerFiles, tokenizer: Tokenizer) -> dict[str, str]:
    """The tokens that encoders need, by the names that transformers gives their roles, such as `mask_token`."""
    found = special_tokens(files.model.parent if files.of_folder else files.model, allow_invalid=True)
    names = tokenizer.tokens()
    ids = {role: getattr(found, role) for role in ROLES}
    return {f"{role}_token": names[number] for role, number in ids.items() if number is not None}


def wrapping_processor(described: Mapping[str, Any], first: str, last: str, ids: Mapping[str, int]) -> dict[str, Any]:
    """The post-processor of a `tokenizer.json` that puts tokens around each text, after the one that it has.

    Args:
        first: token that a text begins with.
        last: token that it ends with.
        ids: of both.
    """

    def token(name: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [token(first, 0), text("A", 0), token(last, 0)]
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), token(last, 1)],
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (first, last)},
    }
    before = described.get("post_processor")
    return template if before is None else {"type": "Sequence", "processors": [before, template]}
