"""NeoBERT's runs: what is published of them, and that each demo-size form is its run in everything but size."""

from pathlib import Path

import pytest

from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.objectives.objective_config import MaskedLMConfig
from megatron_patches.optim.optimizer_config import AdamWConfig, MuonConfig
from megatron_patches.run.config import RunConfig
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.reading import load_run
from tools.run_files.catalogue import find_run

CHECKOUT = Path(__file__).resolve().parents[2]
DEMOS = {
    "tr22d-1M-demo": "tr22a-132M-refinedweb",
    "tr22e-1M-demo-stream": "tr22b-134M-stage4-stream",
    "tr22f-1M-demo-disk": "tr22c-134M-stage4-disk",
}
RUNS = [*DEMOS.values(), *DEMOS]


def load(name: str) -> RunConfig:
    return load_run(find_run(name, CHECKOUT))


@pytest.mark.parametrize("name", RUNS)
def test_all_are_packed_encoders_of_masked_lm(name: str) -> None:
    config = load(name)
    assert isinstance(config.model, EncoderConfig)
    assert isinstance(config.objective, MaskedLMConfig)
    assert config.objective.reset_attention
    assert config.objective.masked_logits_only
    assert config.data.samples.name == "packs"
    assert config.data.samples.model_dump()["wrapped"]


@pytest.mark.parametrize(("name", "rows"), [("tr22a-132M-refinedweb", 30_592), ("tr22b-134M-stage4-stream", 32_000)])
def test_their_parameters(name: str, rows: int) -> None:
    config = load(name)
    block = 4 * 768**2 + 3 * 768 * 2048 + 2 * 768
    assert count_parameters(config.model, config.lengths).total == 12 * block + 768 + 2 * rows * 768


def test_the_paper() -> None:
    """Le Breton et al. 2025, section 3: 2M tokens a step, Llama 2's AdamW, a cosine over nine tenths of the steps."""
    config = load("tr22a-132M-refinedweb")
    assert config.data.sequence_length * config.training.global_batch_size == 2**21
    assert config.timetable.steps == 1_000_000
    assert isinstance(config.objective, MaskedLMConfig)
    assert (config.objective.probability, config.objective.mask_all) == (0.2, True)
    rule = config.optimizer
    assert isinstance(rule, AdamWConfig)
    assert (rule.beta1, rule.beta2, rule.weight_decay, rule.gradient_clip) == (0.9, 0.95, 0.1, 1.0)
    rates = [config.learning_rate(step) for step in (2_000, 900_000, 1_000_000)]
    assert rates == pytest.approx([6e-4, 6e-5, 6e-5])


def test_the_published_file_of_the_100m_run() -> None:
    config = load("tr22b-134M-stage4-stream")
    assert config.data.text is not None
    assert config.data.text.path == "hf:EleutherAI/SmolLM2-1.7B-stage-4-100B"
    assert (config.timetable.steps, config.training.global_batch_size, config.data.sequence_length) == (
        100_000,
        64,
        1024,
    )
    assert config.model.vocabulary == 31_999
    assert isinstance(config.objective, MaskedLMConfig)
    assert (config.objective.probability, config.objective.mask_all) == (0.25, False)
    rule = config.optimizer
    assert isinstance(rule, MuonConfig)
    assert (rule.learning_rate, rule.rest.learning_rate, rule.momentum, rule.weight_decay) == (1e-4, 1e-4, 0.95, 0.01)
    assert (rule.rest.beta1, rule.rest.beta2, rule.rest.epsilon) == (0.9, 0.95, 1e-8)
    rates = [config.learning_rate(step) for step in (5_000, 100_000)]
    assert rates == pytest.approx([1e-4, 1e-5])
    assert config.evaluation is not None
    assert config.evaluation.samples == 4096


def test_a_crash_at_step_69420_loses_less_than_a_hundred_steps() -> None:
    rules = load("tr22b-134M-stage4-stream").checkpoint
    assert rules.ephemeral_every_steps
    assert min(rules.every_steps, rules.ephemeral_every_steps) <= 100


def test_the_stream_and_the_dataset_are_cut_alike() -> None:
    """So that one run may go over from the first to the second."""
    stream, disk = load("tr22b-134M-stage4-stream"), load("tr22c-134M-stage4-disk")
    assert stream.data.samples == disk.data.samples
    assert stream.data.tokenizer == disk.data.tokenizer
    assert (stream.model, stream.objective, stream.optimizer) == (disk.model, disk.objective, disk.optimizer)


@pytest.mark.parametrize(("demo", "large"), DEMOS.items())
def test_a_demo_differs_in_size_alone(demo: str, large: str) -> None:
    small, run = load(demo), load(large)
    assert small.objective == run.objective
    assert small.data.samples == run.data.samples
    assert (small.data.text is None) == (run.data.text is None)
    assert small.optimizer.name == run.optimizer.name
    assert small.timetable.steps * small.training.global_batch_size * small.data.sequence_length == 819_200
