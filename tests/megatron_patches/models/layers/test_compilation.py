"""Blocks under torch.compile: one graph each, one compilation for all, the same gradients.

The backend is `aot_eager`: all of the tracing, and none of the 40 seconds in which inductor's C++ is compiled.
"""

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.parallel.layout import Layout
from tests.ranks import run_on_ranks

SEQUENCE = 16
SIZES = {"layers": 3, "hidden_size": 32, "attention_heads": 4, "ffn_size": 64, "vocab_size": 64}
LLAMA = {
    "activation": "swiglu", "position_embedding": "rotary", "key_value_heads": 2, "norm": "rmsnorm", "norm_bias": False
}  # fmt: skip
DROPOUTS = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
CASES = {
    "gpt2 with dropout": (DROPOUTS, "none"),
    "llama": (LLAMA, "none"),
    "bloom": ({"position_embedding": "alibi"}, "none"),
    "full recomputation": (DROPOUTS, "full"),
    "selective recomputation": (DROPOUTS, "selective"),
}


def compiled_steps(layout: Layout, names: list[str]) -> dict[str, tuple[float, int, int]]:
    """Of each case: greatest difference of a gradient to the uncompiled one, graph breaks, graphs.

    Tensor-parallel ranks say how often the MLPs' second matrices were multiplied in place of the graphs.
    """
    from torch._dynamo.utils import counters

    from megatron_patches.models.layers.compilation import compile_blocks
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    tokens = torch.randint(64, (2, SEQUENCE), generator=torch.Generator().manual_seed(1))
    results = {}

    def gradients(model: torch.nn.Module) -> list[Any]:
        model.zero_grad()
        randomness.start_step(1)
        weighted_loss(model({"tokens": tokens}), (tokens, torch.ones(tokens.shape)), groups).backward()
        return [parameter.grad for parameter in model.parameters()]

    for name in names:
        torch._dynamo.reset()
        counters.clear()
        switches, recomputation = CASES[name]
        config = GPTConfig.model_validate(SIZES | switches)
        model = plain_model(config, SEQUENCE, groups, randomness, recomputation)
        expected = [gradient.clone() for gradient in gradients(model)]
        compile_blocks(model, backend="aot_eager")
        difference = max((a - b).abs().max().item() for a, b in zip(gradients(model), expected, strict=True))
        breaks = Counter(counters["graph_break"]).total()
        results[name] = difference, breaks, counters["stats"]["unique_graphs"]
        if layout.tensor > 1:
            products = count_products(model)
            gradients(model)
            results[name] = difference, breaks, len(products)
    return results


def count_products(model: torch.nn.Module) -> list[str]:
    """A list that grows with each call of a matrix that ends an MLP."""
    products: list[str] = []
    for name, module in model.named_modules():
        if name.endswith("mlp.down.linear"):
            module.register_forward_pre_hook(lambda *_, name=name: products.append(name))
    return products


alone = cache(lambda: run_on_ranks(compiled_steps, 1, Layout(1, 1, 1), list(CASES))[0])


@pytest.mark.parametrize("name", CASES)
def test_a_block_is_one_graph_and_one_compilation_serves_all(name: str) -> None:
    difference, breaks, graphs = alone()[name]
    assert (breaks, graphs) == (0, 1)
    assert difference < 1e-5


def test_tensor_parallel_blocks_give_the_same_gradients() -> None:
    """Their messages break the graph; dropout is drawn from two streams, which a recomputation must find again."""
    names = ["llama", "selective recomputation", "full recomputation"]
    for rank in run_on_ranks(compiled_steps, 2, Layout(2, 1, 1), names):
        for name in names:
            difference, breaks, products = rank[name]
            assert breaks > 0, "one graph now: say so where blocks are compiled"
            assert difference < 1e-5, name
            repeats = 2 if name == "full recomputation" else 1
            assert products == repeats * SIZES["layers"], f"{name}: each product is followed by a message"
