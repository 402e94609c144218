"""`config.json` and `generation_config.json` of an export."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pydantic import JsonValue

from data_tools.text.control_tokens import named_tokens
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.models.interface.transformers_format import COMMON_KEYS, Task, TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.source import Source


@dataclass(frozen=True)
class TokenIds:
    """Ids that stand for no text; None where the tokenizer has no such token."""

    bos: int | None
    """begins a text; where texts are continued and none is named the end-of-document token, since documents follow each
    other in training, and where they are read whole what begins one (cls)"""
    eos: int | None
    """ends a text; where texts are read whole and documents have no such token what ends one (sep)"""
    pad: int | None
    mask: int | None = None
    """stands for a masked token; None where texts are continued"""

    def as_json(self) -> dict[str, JsonValue]:
        """By the names that transformers gives them; of the mask where there is one."""
        mask = {} if self.mask is None else {"mask_token_id": self.mask}
        return {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad, **mask}


def token_ids(settings: Mapping[str, Any], tokenizer: Tokenizer, task: Task = "text-generation") -> TokenIds:
    """The ids of the tokens that a `tokenizer_config.json` names, as a model of this kind uses them."""
    numbers = {token: number for number, token in tokenizer.tokens().items()}
    ids = {role: numbers.get(token) for role, token in named_tokens(settings).items()}
    eos, bos, pad = tokenizer.end_of_document, ids.get("bos_token"), ids.get("pad_token")
    if task == "text-generation":
        return TokenIds(bos=eos if bos is None else bos, eos=eos, pad=pad)
    begins = ids.get("cls_token") if bos is None else bos
    ends = ids.get("sep_token") if eos is None else eos
    return TokenIds(begins, ends, pad, ids.get("mask_token"))


def config_json(format: TransformersFormat, config: RunConfig, ids: TokenIds, source: Source) -> dict[str, JsonValue]:
    """The model as transformers reads it."""
    common: dict[str, JsonValue] = {
        "architectures": [format.class_name],
        "model_type": format.model_type,
        "dtype": str(source.dtype).removeprefix("torch."),
        **ids.as_json(),
        "vocab_size": config.model.vocabulary,
        "tie_word_embeddings": not any(row.part == "head" and row.matrix for row in config.parameters),
        "transformers_version": metadata.version("transformers"),
    }
    mask = {} if ids.mask is None else {"mask_token_id": ids.mask}
    return format.config(config.model, config.lengths) | {key: common[key] for key in COMMON_KEYS} | mask


def generation_json(ids: TokenIds) -> dict[str, JsonValue]:
    """How a text begins and ends. Sampling stays that of transformers: the run says nothing of it."""
    return {**ids.as_json(), "transformers_version": metadata.version("transformers")}
