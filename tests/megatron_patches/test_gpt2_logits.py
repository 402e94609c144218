"""GPT-2 124M: the same logits as transformers' GPT2LMHeadModel with the same random weights."""

import numpy as np
import pytest
import torch
from torch import Tensor

from megatron_patches.models.model_config import ModelConfig
from megatron_patches.parameter_count import count_parameters
from tests.ranks import run_on_ranks

GPT2 = ModelConfig(layers=12, hidden_size=768, attention_heads=12, ffn_size=3072, vocab_size=50257)
SMALL = ModelConfig(layers=2, hidden_size=32, attention_heads=4, ffn_size=96, vocab_size=64)


def transformers_weights(model: ModelConfig, positions: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Random weights by our canonical names, tokens `[2, 48]`, and transformers' logits `[2, 48, vocabulary]`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(5)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            n_layer=model.layers,
            n_embd=model.hidden_size,
            n_head=model.attention_heads,
            n_inner=model.ffn_size,
            vocab_size=model.vocab_size,
            n_positions=positions,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    for name, parameter in theirs.named_parameters():  # all of them: a zero bias would hide that it is not used
        is_norm = "ln_" in name and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm else 0.0, std=0.04)
    tokens = torch.randint(model.vocab_size, (2, 48))
    with torch.no_grad():
        logits = theirs(tokens).logits
    return {name: tensor.detach() for name, tensor in canonical(theirs.transformer, model)}, tokens, logits


def canonical(gpt2, model: ModelConfig):  # type: ignore[no-untyped-def]
    """transformers' tensors by our names; its Conv1D stores (in, out), and its q, k, v come one after another."""
    yield "embedding.tokens.table.weight", gpt2.wte.weight
    yield "positions.weight", gpt2.wpe.weight
    for index, block in enumerate(gpt2.h):
        for ours, linear in (
            ("attention.query_key_value", block.attn.c_attn), ("attention.output", block.attn.c_proj),
            ("mlp.up", block.mlp.c_fc), ("mlp.down", block.mlp.c_proj),
        ):  # fmt: skip
            weight, bias = linear.weight.T, linear.bias
            if linear is block.attn.c_attn:
                weight, bias = (heads_first(tensor, model.attention_heads) for tensor in (weight, bias))
            yield f"layers.{index}.{ours}.linear.weight", weight
            yield f"layers.{index}.{ours}.linear.bias", bias
        for ours, norm in (("attention_norm", block.ln_1), ("mlp_norm", block.ln_2)):
            yield f"layers.{index}.{ours}.weight", norm.weight
            yield f"layers.{index}.{ours}.bias", norm.bias
    yield "final_norm.weight", gpt2.ln_f.weight
    yield "final_norm.bias", gpt2.ln_f.bias


def heads_first(rows: Tensor, heads: int) -> Tensor:
    """(q, k, v; head; feature) rows as (head; q, k, v; feature)."""
    return rows.reshape(3, heads, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


def our_logits(
    model: ModelConfig, positions: int, weights: dict[str, Tensor], tokens: Tensor
) -> tuple[np.ndarray, int]:
    """Logits `[2, 48, vocabulary]` of a plain model with these weights, and how many parameters it has."""
    import os

    import torch.distributed as dist

    from megatron_patches.layout import Layout
    from megatron_patches.models.build import build_plain
    from megatron_patches.models.gpt import gpt_layers
    from megatron_patches.parallel.parameters import info_of
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness

    groups = start_process_groups(Layout(int(os.environ["WORLD_SIZE"]), 1, 1), torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    plain = build_plain(gpt_layers(model, positions, groups, randomness), seed=0).eval()
    named = {f"{prefix}.{name}": p for prefix, layer in plain.named_layers() for name, p in layer.named_parameters()}
    assert named.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in named.items():
            box = tuple(slice(start, stop) for start, stop in info_of(parameter).slice.box)
            parameter.copy_(weights[name][box])
        here = plain(tokens).contiguous()
    parts = [torch.empty_like(here) for _ in range(groups.layout.tensor)]
    dist.all_gather(parts, here)
    logits = torch.cat(parts, dim=-1).transpose(0, 1)
    return logits.numpy(), sum(parameter.numel() for parameter in named.values())


def test_gpt2_124m_equals_transformers() -> None:
    weights, tokens, expected = transformers_weights(GPT2, 1024)
    logits, parameters = run_on_ranks(our_logits, 1, GPT2, 1024, weights, tokens)[0]
    assert (torch.from_numpy(logits) - expected).abs().max() < 1e-4
    assert expected.std() > 0.5, "logits that are all alike would agree with anything"
    assert parameters == count_parameters(GPT2, 1024).total == 124_439_808


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_tensor_parallel_logits_equal_transformers(ranks: int) -> None:
    weights, tokens, expected = transformers_weights(SMALL, 48)
    for logits, _ in run_on_ranks(our_logits, ranks, SMALL, 48, weights, tokens):
        assert (torch.from_numpy(logits) - expected).abs().max() < 1e-5


def test_a_changed_weight_changes_the_logits() -> None:
    """So that the comparison above would see an unused parameter."""
    weights, tokens, expected = transformers_weights(SMALL, 48)
    for name in weights:
        changed = weights | {name: weights[name] + torch.randn(weights[name].shape)}
        if "key_value.linear.bias" in name or name == "final_norm.bias":
            continue  # a key's bias shifts all scores of a query alike; checked as a whole by the two tests above
        logits, _ = run_on_ranks(our_logits, 1, SMALL, 48, changed, tokens)[0]
        assert (torch.from_numpy(logits) - expected).abs().max() > 1e-3, name
