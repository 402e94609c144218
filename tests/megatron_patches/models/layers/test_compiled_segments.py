"""Blocks under torch.compile whose samples are cut into segments: other lengths in each micro-batch, no other graph."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch

from megatron_patches.batch.fields import DOCUMENTS, TOKENS, ModelInputs
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.parallel.layout import Layout
from tests.megatron_patches.models.layers.test_compilation import DROPOUTS, LLAMA, SIZES
from tests.ranks import run_on_ranks

SEQUENCE = 16
CASES: dict[str, tuple[dict[str, Any], Recomputation]] = {
    "llama": (LLAMA, "none"),
    "bloom": ({"position_embedding": "alibi"}, "none"),
    "full recomputation": (DROPOUTS, "full"),
    "selective recomputation": (DROPOUTS, "selective"),
}


def compiled_steps(together: bool) -> dict[str, tuple[float, list[int], int]]:
    """For each case: greatest difference of a gradient to the uncompiled one, graphs after each micro-batch, breaks.

    `together` takes torch's operator for all segments, as on a GPU.
    """
    from torch._dynamo.utils import counters

    from megatron_patches.models.attention.kernel_choice import KernelChoice
    from megatron_patches.models.layers.attention import SelfAttention
    from megatron_patches.models.layers.compilation import compile_blocks
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.megatron_patches.models.attention.test_segments_together import give_the_operator_a_cpu_kernel
    from tests.small_model import plain_model

    groups = start_process_groups(Layout(1, 1, 1), torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    inputs = ModelInputs((TOKENS, DOCUMENTS), "causal_documents", within_documents=True)
    tokens = torch.randint(64, (2, SEQUENCE), generator=torch.Generator().manual_seed(1))
    lengths = [torch.arange(SEQUENCE).expand(2, -1) // length for length in (16, 1, 3, 7)]

    def gradients(model: torch.nn.Module, documents: torch.Tensor) -> list[Any]:
        model.zero_grad()
        randomness.start_step(1)
        logits = model({"tokens": tokens, "documents": documents})
        weighted_loss(logits, (tokens, torch.ones(tokens.shape)), groups).backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    if together:
        give_the_operator_a_cpu_kernel()
    found = {}
    for name, (switches, recomputation) in CASES.items():
        if together and switches is not LLAMA:
            continue
        torch._dynamo.reset()
        counters.clear()
        config = GPTConfig.model_validate(SIZES | switches | {"layers": 2})
        model = plain_model(config, SEQUENCE, groups, randomness, recomputation, inputs=inputs)
        for layer in model.modules():
            if together and isinstance(layer, SelfAttention):
                layer.kernel = KernelChoice(variable_length=True)
        expected = [gradients(model, each) for each in lengths]
        compile_blocks(model, backend="aot_eager")
        difference, graphs = 0.0, []
        for documents, right in zip(lengths, expected, strict=True):
            ours = gradients(model, documents)
            pairs = zip(ours, right, strict=True)
            difference = max(difference, *((a - b).abs().max().item() for a, b in pairs))
            graphs.append(counters["stats"]["unique_graphs"])
        found[name] = difference, graphs, Counter(counters["graph_break"]).total()
    return found


alone = cache(lambda together: run_on_ranks(compiled_steps, 1, together)[0])


@pytest.mark.parametrize("name", CASES)
def test_other_lengths_are_not_compiled_again(name: str) -> None:
    difference, graphs, breaks = alone(False)[name]
    assert difference < 1e-5
    assert len(set(graphs)) == 1 and breaks > 0


def test_where_one_call_takes_all_segments_a_block_stays_one_graph() -> None:
    difference, graphs, breaks = alone(True)["llama"]
    assert difference < 1e-5
    assert (set(graphs), breaks) == ({1}, 0)
