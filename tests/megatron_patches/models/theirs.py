"""Models of transformers, built by the product's formats or from a `config.json`, with random weights."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.transformers_exchange.choice import format_of
from tests.small_model import causal_lengths

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def config_keys(form: TransformersFormat, model: TransformerConfig, positions: int) -> dict[str, Any]:
    """A `config.json` as an export has it, read back from its text."""
    common = {"vocab_size": model.vocab_size, "tie_word_embeddings": model.tied_head, **IDS}
    found: dict[str, Any] = json.loads(json.dumps(form.config(model, causal_lengths(positions)) | common))
    return found


def build(model_type: str, keys: Mapping[str, Any], deviation: float = 0.2) -> Any:
    """Their model in fp32, every weight random: a zero bias would hide that it is not used."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    config = AutoConfig.for_model(model_type, **json.loads(json.dumps(keys)))
    automatic = AutoModelForMaskedLM if format_of(model_type)[1].task == "fill-mask" else AutoModelForCausalLM
    theirs = automatic.from_config(config).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in theirs.named_parameters():
        is_norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm else 0.0, std=deviation, generator=generator)
    return theirs


def own_weights(form: TransformersFormat, model: TransformerConfig, positions: int, theirs: Any) -> dict[str, Tensor]:
    """Their weights by our names, in the shapes of our rows without padding."""
    state = theirs.state_dict()
    pairs = form.pairs(model, parameter_table(model, causal_lengths(positions)))
    return {pair.ours: pair.join([state[name] for name in pair.theirs]).clone() for pair in pairs}


def their_weights(
    form: TransformersFormat, model: TransformerConfig, positions: int, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our weights by their names, filled up."""
    found: dict[str, Tensor] = {}
    for pair in form.pairs(model, parameter_table(model, causal_lengths(positions))):
        found |= zip(pair.theirs, pair.split(weights[pair.ours]), strict=True)
    return found | {each.name: torch.full(each.shape, each.value) for each in form.filled(model)}


def load(theirs: Any, weights: Mapping[str, Tensor], tied: bool) -> None:
    """Put weights in; raises RuntimeError for a name or a shape too many or too few."""
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - ({"lm_head.weight"} if tied else set()):
        raise RuntimeError(f"missing {missing}, unexpected {unexpected}")


def logits(theirs: Any, tokens: Tensor) -> Tensor:
    """`[batch, sequence, vocabulary]`."""
    with torch.no_grad():
        found: Tensor = theirs(tokens).logits
    return found
