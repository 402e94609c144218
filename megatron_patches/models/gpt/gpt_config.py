"""The `model:` section of a GPT."""

from typing import Literal

from pydantic import Field

from megatron_patches.models.layers.transformer_config import TransformerConfig


class GPTConfig(TransformerConfig):
    """Architecture and initialisation of a GPT."""

    name: Literal["gpt"] = Field("gpt", description="architecture; it decides which keys there are")
