"""The runs that are here: they keep the rules, and are what their READMEs say they are."""

from pathlib import Path

import pytest

from megatron_patches.optim.optimizer_config import AdamWConfig
from megatron_patches.optim.schedule_config import CosineScheduleConfig
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.reading import load_run
from megatron_patches.run.summary import tokens_per_step
from tests.small_model import causal_lengths
from tools.commands.runs.lint import lint_all
from tools.run_files.catalogue import find_run, run_files

CHECKOUT = Path(__file__).resolve().parents[2]


def load(name: str) -> RunConfig:
    return load_run(find_run(name, CHECKOUT))


def test_no_rule_is_broken() -> None:
    assert lint_all(CHECKOUT) == []


def test_train_holds_no_code() -> None:
    assert [path for path in (CHECKOUT / "train").rglob("*.py") if path.is_file()] == []


@pytest.mark.parametrize("path", run_files(CHECKOUT), ids=lambda path: path.stem)
def test_scripts_are_executable(path: Path) -> None:
    assert path.with_suffix(".slurm").stat().st_mode & 0o111


def test_the_demo_is_tensor_parallel_in_fp32_and_small() -> None:
    config = load("tr0a-4M-stdlib")
    assert config.training.precision == "fp32"
    assert config.parallel.tensor == 2
    assert config.parallel.processes_per_node == 2
    assert abs(count_parameters(config.model, config.lengths).total / 4e6 - 1) < 0.05
    assert config.evaluation is not None


def test_tr20a_is_gpt2_small_with_the_shared_vocabulary() -> None:
    config = load("tr20a-125M-baseline")
    model, training = config.model, config.training
    assert count_parameters(model, causal_lengths(1024)).total == 124_439_808 + (50_349 - 50_257) * 768
    assert model.vocab_size == 50_304 + 45
    assert (model.tied_head, model.activation, model.init_std, model.init_residual_scaling) == (
        True,
        "gelu_tanh",
        0.02,
        True,
    )
    assert tokens_per_step(config) == 524_288
    assert plan_layout(config, 4).micro_batches(training) == 4
    assert (training.steps, training.micro_batch_size, training.precision) == (19_073, 32, "bf16")
    assert config.optimizer == AdamWConfig(
        name="adamw", learning_rate=6e-4, weight_decay=0.1, gradient_clip=1.0, beta1=0.9, beta2=0.95
    )
    assert config.schedule == CosineScheduleConfig(name="cosine", warmup=715, final_learning_rate=6e-5)
    assert config.checkpoint.every_steps == 2000
