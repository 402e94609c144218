"""Texts packed into one sample train a model as each of them alone does: other texts do not exist for them.

Positions restart with each text where the model reads them; padding is a segment of its own.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from megatron_patches.batch.fields import TOKENS, ModelInputs
from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides

if TYPE_CHECKING:
    import torch

    from megatron_patches.batch.micro_batch import MicroBatch
    from megatron_patches.models.build import PlainModel
    from megatron_patches.parallel.process_groups import ProcessGroups

SEQUENCE, VOCABULARY = 16, 384
# texts of the two samples of three micro-batches; what is left of a sample is padding
TEXTS = [[[5, 4, 7], [16]], [[1, 1, 3, 3], [9, 5]], [[15, 1], [2, 6, 8]]]
RESET = overrides(objective__reset_attention="true")
SIZES = "layers: 2, hidden_size: 32, attention_heads: 4, ffn_size: 64, vocab_size: 384, norm_bias: false"
MASKED = "--objective={name: masked_lm, masked_logits_only: false}"
MODELS = {
    "GPT-2": [*RESET, *overrides(objective__reset_positions="true")],
    "Llama": [*RESET, *overrides(model__key_value_heads=2, model__position_embedding="rotary")],
    "BLOOM": [*RESET, *overrides(model__position_embedding="alibi")],
    "NeoBERT": [MASKED, f"--model={{name: encoder, {SIZES}}}"],
    "encoder with learned positions": [MASKED, f"--model={{name: encoder, position_embedding: learned, {SIZES}}}"],
}
LAYOUTS = {
    "single": (1, []),
    "TP2 sequence": (2, overrides(parallel__tensor=2, parallel__sequence_parallel="true")),
    "PP2": (2, overrides(parallel__pipeline=2)),
    "full recomputation, PP2": (2, overrides(parallel__pipeline=2, training__recomputation="full")),
}


def texts(micro_batch: int) -> Iterator[tuple[int, int, int]]:
    """Sample, first place and number of tokens of each text."""
    for sample, lengths in enumerate(TEXTS[micro_batch]):
        for number, length in enumerate(lengths):
            yield sample, sum(lengths[:number]), length


def packed(micro_batch: int, inputs: ModelInputs) -> "MicroBatch":
    import torch

    from megatron_patches.batch.micro_batch import MicroBatch

    draw = torch.Generator().manual_seed(micro_batch)
    tokens, labels = torch.randint(VOCABULARY, (2, 2, SEQUENCE), generator=draw)
    documents, positions, weights = -torch.ones_like(tokens), torch.zeros_like(tokens), torch.zeros(tokens.shape)
    for sample, first, length in texts(micro_batch):
        of_text = sample, slice(first, first + length)
        documents[of_text], positions[of_text], weights[of_text] = first, torch.arange(length), 1 / 100
    fields = {"tokens": tokens, "documents": documents, "positions": positions}
    return MicroBatch({name: fields[name] for name in inputs.names}, labels, weights)


def trained_packed(configs: dict[str, RunConfig]) -> dict[str, tuple[float, float]]:
    """Loss and gradient norm of one step, through the engine of a run."""
    from megatron_patches.engine.build import build_engine
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_engine import groups_of

    groups = groups_of(next(iter(configs.values())))
    found = {}
    for name, config in configs.items():
        randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
        engine = build_engine(config, groups, randomness)
        randomness.start_step(1)
        loss = engine.forward_backward([packed(number, config.objective.inputs) for number in range(len(TEXTS))])
        found[name] = loss.item(), engine.grad_norm().item()
    return found


def model_of(config: RunConfig, inputs: ModelInputs, groups: "ProcessGroups") -> "PlainModel":
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    randomness = StepRandomness(0, groups.coordinates, groups.device)
    return plain_model(config.model, SEQUENCE, groups, randomness, seed=config.training.seed, inputs=inputs)


def step_alone(config: RunConfig, inputs: ModelInputs, groups: "ProcessGroups") -> tuple[Any, list["torch.Tensor"]]:
    """Loss of all texts, each read by itself, and the gradients."""
    from megatron_patches.objectives.loss import weighted_loss

    model = model_of(config, inputs, groups)
    total: Any = 0.0
    for number in range(len(TEXTS)):
        whole = packed(number, ModelInputs((TOKENS,), "full"))
        for sample, first, length in texts(number):
            own = slice(sample, sample + 1), slice(first, first + length)
            logits = model({"tokens": whole.inputs["tokens"][own]})
            total = total + weighted_loss(logits, (whole.labels[own], whole.weights[own]), groups)
    total.backward()
    return total.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def alone(configs: dict[str, RunConfig]) -> dict[str, tuple[float, float, float]]:
    """Loss and gradient norm in fp32, and how far packed ones are from them in fp64, at most."""
    import torch

    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    groups = start_process_groups(Layout(1, 1, 1), torch.float32)
    exactly, found = replace(groups, dtype=torch.float64), {}
    for name, config in configs.items():
        inputs = config.objective.inputs
        plain = ModelInputs((TOKENS,), "causal" if inputs.attention == "causal_documents" else "full")
        loss, gradients = step_alone(config, plain, groups)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        exact, exact_gradients = step_alone(config, plain, exactly)
        model = model_of(config, inputs, exactly)
        total: Any = 0.0
        for number in range(len(TEXTS)):
            batch = packed(number, inputs)
            total = total + weighted_loss(model(batch.inputs), (batch.labels, batch.weights), exactly)
        total.backward()
        ours = [parameter.grad for parameter in model.parameters()]
        pairs = zip([total.detach(), *ours], [exact, *exact_gradients], strict=True)
        found[name] = loss.item(), norm.item(), max((a - b).abs().max().item() for a, b in pairs)
    return found


@pytest.fixture(scope="module")
def expected(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("alone")
    return cache(lambda: run_on_ranks(alone, 1, configs(small_data, folder, []))[0])


def configs(small_data: SmallData, folder: Path, layout: list[str]) -> dict[str, RunConfig]:
    whole = overrides(training__global_batch_size=6, model__layers=2, optimizer__gradient_clip=0.0)
    return {name: small_data.run(folder, [*whole, *layout, *model]) for name, model in MODELS.items()}


def test_in_fp64_nothing_of_other_texts_is_seen(expected: Any) -> None:
    for name, (_, _, difference) in expected().items():
        assert difference < 1e-10, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_engine_trains_packed_texts_as_texts_alone(
    layout: str, expected: Any, small_data: SmallData, tmp_path: Path
) -> None:
    ranks, arguments = LAYOUTS[layout]
    for found in run_on_ranks(trained_packed, ranks, configs(small_data, tmp_path, arguments)):
        for name, (loss, norm) in found.items():
            assert (loss, norm) == pytest.approx(expected()[name][:2], rel=1e-5), name
