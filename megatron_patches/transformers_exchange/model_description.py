"""`config.json` and `generation_config.json` of an export."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pydantic import JsonValue

from data_tools.text.control_tokens import named_tokens
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.models.interface.transformers_format import COMMON_KEYS, TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.source import Source


@dataclass(frozen=True)
class TokenIds:
    """Ids that steer generation; None where the tokenizer has no such token."""

    bos: int | None
    """begins a text; the end-of-document token where none is named, since documents follow each other in training"""
    eos: int | None
    pad: int | None

    def as_json(self) -> dict[str, JsonValue]:
        """By the names that transformers gives them."""
        return {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad}


def token_ids(settings: Mapping[str, Any], tokenizer: Tokenizer) -> TokenIds:
    """The ids of the tokens that a `tokenizer_config.json` names."""
    numbers = {token: number for number, token in tokenizer.tokens().items()}
    ids = {role: numbers.get(token) for role, token in named_tokens(settings).items()}
    eos = tokenizer.end_of_document
    bos = ids.get("bos_token")
    return TokenIds(bos=eos if bos is None else bos, eos=eos, pad=ids.get("pad_token"))


def config_json(format: TransformersFormat, config: RunConfig, ids: TokenIds, source: Source) -> dict[str, JsonValue]:
    """The model as transformers reads it."""
    common: dict[str, JsonValue] = {
        "architectures": [format.class_name],
        "model_type": format.model_type,
        "dtype": str(source.dtype).removeprefix("torch."),
        **ids.as_json(),
        "vocab_size": config.model.vocabulary,
        "tie_word_embeddings": not any(row.part == "head" for row in config.parameters),
        "transformers_version": metadata.version("transformers"),
    }
    return format.config(config.model, config.lengths) | {key: common[key] for key in COMMON_KEYS}


def generation_json(ids: TokenIds) -> dict[str, JsonValue]:
    """How a text begins and ends. Sampling stays that of transformers: the run says nothing of it."""
    return {**ids.as_json(), "transformers_version": metadata.version("transformers")}
