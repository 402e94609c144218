"""Small models of transformers with random weights, and the same weights by our canonical names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megatron_patches.models.layers.model_config import ModelConfig

SEQUENCE = 24
SIZES = {"layers": 4, "hidden_size": 48, "attention_heads": 6, "vocab_size": 64}
NO_BIASES = {"norm_bias": False, "attention_bias": False, "mlp_bias": False}
GPT2_124M = ModelConfig(layers=12, hidden_size=768, attention_heads=12, ffn_size=3072, vocab_size=50257)
NEOX = SIZES | {
    "ffn_size": 80, "activation": "gelu", "tied_head": False, "position_embedding": {"name": "rotary", "fraction": 0.25}
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """Tokens `[2, sequence]`, logits `[2, sequence, vocabulary]`, and every weight in its global shape.

    The weights lie in one tensor: what goes to another process costs a file descriptor for each, and 64 are allowed.
    """

    model: ModelConfig
    sequence_length: int
    shapes: dict[str, torch.Size]
    flat: Tensor
    tokens: np.ndarray
    logits: np.ndarray

    @property
    def weights(self) -> dict[str, Tensor]:
        """By our names."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), self.flat.split(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def changed(self, name: str) -> "Reference":
        """The same with one random weight in place of that of the model."""
        torch.manual_seed(9)
        weights = self.weights | {name: self.weights[name] + torch.randn(self.shapes[name])}
        return replace(self, flat=torch.cat([weight.flatten() for weight in weights.values()]))


Names = Iterator[tuple[str, Tensor]]


def reference(kind: str) -> Reference:
    """transformers' model of this kind and what it says."""
    model, theirs, names = FAMILY[kind]()
    for name, parameter in theirs.named_parameters():  # all of them: a zero bias would hide that it is not used
        is_norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm else 0.0, std=0.04 if kind == "gpt2-124m" else 0.2)
    tokens = torch.randint(model.vocab_size, (2, SEQUENCE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = theirs.eval()(tokens).logits
    rows = 1024 if kind == "gpt2-124m" else SEQUENCE
    weights = {name: tensor.detach() for name, tensor in names}
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    shapes = {name: weight.shape for name, weight in weights.items()}
    return Reference(model, rows, shapes, flat, tokens.numpy(), logits.numpy())


def _gpt2(model: ModelConfig, rows: int) -> tuple[ModelConfig, Any, Names]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(5)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            n_layer=model.layers, n_embd=model.hidden_size, n_head=model.attention_heads, n_inner=model.ffn_size,
            vocab_size=model.vocab_size, n_positions=rows, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    return model, theirs, _gpt2_names(theirs.transformer, model)


def _gpt2_names(gpt2: Any, model: ModelConfig) -> Names:
    """Its Conv1D stores (in, out), and its queries, keys and values come one after another."""
    yield "embedding.tokens.table.weight", gpt2.wte.weight
    yield "positions.weight", gpt2.wpe.weight
    for index, block in enumerate(gpt2.h):
        prefix = f"layers.{index}"
        fused, heads = block.attn.c_attn, model.attention_heads
        yield f"{prefix}.attention.query_key_value.linear.weight", _heads_first(fused.weight.T, heads)
        yield f"{prefix}.attention.query_key_value.linear.bias", _heads_first(fused.bias, heads)
        for ours, linear in (
            ("attention.output", block.attn.c_proj), ("mlp.up", block.mlp.c_fc), ("mlp.down", block.mlp.c_proj)
        ):  # fmt: skip
            yield f"{prefix}.{ours}.linear.weight", linear.weight.T
            yield f"{prefix}.{ours}.linear.bias", linear.bias
        yield from _both(f"{prefix}.attention_norm", block.ln_1)
        yield from _both(f"{prefix}.mlp_norm", block.ln_2)
    yield from _both("final_norm", gpt2.ln_f)


def _heads_first(rows: Tensor, heads: int) -> Tensor:
    """(query, key, value; head; feature) rows as (head; query, key, value; feature)."""
    return rows.reshape(3, heads, -1, *rows.shape[1:]).transpose(0, 1)


def _bloom() -> tuple[ModelConfig, Any, Names]:
    from transformers import BloomConfig, BloomForCausalLM

    model = ModelConfig.model_validate(SIZES | {"ffn_size": 192, "position_embedding": "alibi", "embedding_norm": True})
    torch.manual_seed(6)
    theirs = BloomForCausalLM(
        BloomConfig(
            vocab_size=model.vocab_size, hidden_size=model.hidden_size, n_layer=model.layers,
            n_head=model.attention_heads, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip

    def names() -> Names:
        bloom = theirs.transformer
        yield "embedding.tokens.table.weight", bloom.word_embeddings.weight
        yield from _both("embedding_norm", bloom.word_embeddings_layernorm)
        for index, block in enumerate(bloom.h):
            yield from _fused_block(f"layers.{index}", block.self_attention, block.mlp, block)
        yield from _both("final_norm", bloom.ln_f)

    return model, theirs, names()


def _neox(parallel: bool) -> tuple[ModelConfig, Any, Names]:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    model = ModelConfig.model_validate(NEOX | {"hidden_size": 96, "parallel_residual": parallel})
    torch.manual_seed(7)
    theirs = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=model.vocab_size, hidden_size=model.hidden_size, num_hidden_layers=model.layers,
            num_attention_heads=model.attention_heads, intermediate_size=model.ffn_size,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
            use_parallel_residual=parallel, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip

    def names() -> Names:
        yield "embedding.tokens.table.weight", theirs.gpt_neox.embed_in.weight
        for index, block in enumerate(theirs.gpt_neox.layers):
            yield from _fused_block(f"layers.{index}", block.attention, block.mlp, block)
        yield from _both("final_norm", theirs.gpt_neox.final_layer_norm)
        yield "head.logits.linear.weight", theirs.get_output_embeddings().weight

    return model, theirs, names()


def _fused_block(prefix: str, attention: Any, mlp: Any, block: Any) -> Names:
    """BLOOM and GPT-NeoX fuse queries, keys and values head by head, as we do, and name the rest alike."""
    yield from _both(f"{prefix}.attention.query_key_value.linear", attention.query_key_value)
    yield from _both(f"{prefix}.attention.output.linear", attention.dense)
    yield from _both(f"{prefix}.mlp.up.linear", mlp.dense_h_to_4h)
    yield from _both(f"{prefix}.mlp.down.linear", mlp.dense_4h_to_h)
    yield from _both(f"{prefix}.attention_norm", block.input_layernorm)
    yield from _both(f"{prefix}.mlp_norm", block.post_attention_layernorm)


def _llama(groups: int) -> tuple[ModelConfig, Any, Names]:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = ModelConfig.model_validate(
        SIZES | NO_BIASES | {
            "ffn_size": 80, "key_value_heads": groups, "position_embedding": {"name": "rotary", "theta": 500.0},
            "activation": "swiglu", "norm": "rmsnorm", "norm_epsilon": 1e-6, "tied_head": False,
        }
    )  # fmt: skip
    torch.manual_seed(8)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocab_size, hidden_size=model.hidden_size, num_hidden_layers=model.layers,
            num_attention_heads=model.attention_heads, num_key_value_heads=groups, intermediate_size=model.ffn_size,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rms_norm_eps=1e-6, bos_token_id=0,
            eos_token_id=0,
        )
    )  # fmt: skip

    def names() -> Names:
        yield "embedding.tokens.table.weight", theirs.model.embed_tokens.weight
        for index, block in enumerate(theirs.model.layers):
            prefix, attention, mlp = f"layers.{index}", block.self_attn, block.mlp
            keys_values = [linear.weight.view(groups, 8, -1) for linear in (attention.k_proj, attention.v_proj)]
            yield f"{prefix}.attention.query.linear.weight", attention.q_proj.weight
            yield f"{prefix}.attention.key_value.linear.weight", torch.stack(keys_values, dim=1)
            yield f"{prefix}.attention.output.linear.weight", attention.o_proj.weight
            yield f"{prefix}.mlp.up.linear.weight", torch.stack([mlp.gate_proj.weight, mlp.up_proj.weight])
            yield f"{prefix}.mlp.down.linear.weight", mlp.down_proj.weight
            yield f"{prefix}.attention_norm.weight", block.input_layernorm.weight
            yield f"{prefix}.mlp_norm.weight", block.post_attention_layernorm.weight
        yield "final_norm.weight", theirs.model.norm.weight
        yield "head.logits.linear.weight", theirs.lm_head.weight

    return model, theirs, names()


def _both(prefix: str, layer: Any) -> Names:
    yield f"{prefix}.weight", layer.weight
    yield f"{prefix}.bias", layer.bias


FAMILY: dict[str, Callable[[], tuple[ModelConfig, Any, Names]]] = {
    "gpt2": lambda: _gpt2(ModelConfig.model_validate(SIZES | {"ffn_size": 80}), SEQUENCE),
    "gpt2-124m": lambda: _gpt2(GPT2_124M, 1024),
    "bloom": _bloom,
    "llama": lambda: _llama(groups=2),
    "llama-multi-query": lambda: _llama(groups=1),  # fewer groups than tensor-parallel ranks
    "neox-parallel": lambda: _neox(parallel=True),
    "neox": lambda: _neox(parallel=False),
}
