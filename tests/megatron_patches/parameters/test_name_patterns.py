"""Patterns of parameter names: what they choose, and what is refused of them."""

import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from megatron_patches.errors import TrainyardError
from megatron_patches.optim.build import select_trainable
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.name_patterns import decay_by_name, is_trained
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.training.training_config import TrainingConfig
from tests.ranks import run_on_ranks
from tests.small_run import write_run

MUON = "{name: muon, learning_rate: 1e-2, rest: {learning_rate: 1e-3}}"


def training(**patterns: list[str]) -> TrainingConfig:
    return TrainingConfig(steps=1, global_batch_size=1, micro_batch_size=1, **patterns)


def test_bitfit() -> None:
    """Only biases train (Ben Zaken et al. 2022)."""
    parameters = {
        name: nn.Parameter(torch.zeros(2)) for name in ("layers.0.up.bias", "layers.0.up.weight", "head.bias")
    }
    select_trainable(training(trainable=["*.bias"], frozen=["head.*"]), parameters)
    assert [name for name, parameter in parameters.items() if parameter.requires_grad] == ["layers.0.up.bias"]
    select_trainable(training(), parameters)
    assert all(parameter.requires_grad for parameter in parameters.values())


def test_frozen_wins() -> None:
    assert is_trained(training(trainable=["a.*", "b.*"], frozen=["*.x"]), "b.y")
    assert not is_trained(training(trainable=["a.*", "b.*"], frozen=["*.x"]), "b.x")
    assert not is_trained(training(trainable=["a.*", "b.*"]), "c.y")


def test_the_last_pattern_decides_the_decay() -> None:
    decays = {"*.weight": 0.1, "layers.*": 0.2, "*.norm.*": 0.0}
    found = [decay_by_name(decays, name) for name in ("head.weight", "layers.0.weight", "layers.0.norm.weight", "b")]
    assert found == [0.1, 0.2, 0.0, None]


def layers_of(config: RunConfig) -> dict[str, bool]:
    """Which parameters of the built model have rows and columns."""
    from megatron_patches.models.build import canonical_parameters
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(Layout(1, 1, 1), torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    model = plain_model(config.model, config.data.sequence_length, groups, randomness)
    return {name: parameter.dim() >= 2 for name, parameter in canonical_parameters(model).items()}


def test_the_configuration_knows_the_matrices_that_optimizers_know(tmp_path: Path) -> None:
    """Fused biases, several norms, an untied head."""
    arguments = ["--model.activation=swiglu", "--model.query_key_norm=true", "--model.tied_head=false"]
    config = load_run(write_run(tmp_path / "run.yaml"), arguments)
    assert run_on_ranks(layers_of, 1, config) == [{row.name: row.matrix for row in config.parameters}]


CASES = [
    (
        "--training.trainable '[\"*.biass\"]'",
        "training.trainable: the pattern *.biass fits no parameter; nearest:",
        "nothing is left to train",
    ),
    (
        "--training.frozen '[\"layers.4.*\"]'",
        "training.frozen: the pattern layers.4.* fits no parameter; nearest: layers.*.",
        "",
    ),
    (
        "--optimizer.weight_decay_by_name '{embeding.*: 0.1}'",
        "optimizer.weight_decay_by_name: the pattern embeding.* fits no parameter; nearest: embedding.",
        "",
    ),
    ("--training.frozen '[\"*\"]'", "nothing is left to train: training.trainable ['*']", "shorten frozen"),
    (
        "--training.trainable '[\"*.bias\"]' --optimizer.weight_decay_by_name '{\"layers.0.*.weight\": 0.1}'",
        "optimizer.weight_decay_by_name: the pattern layers.0.*.weight has no effect: nothing that it fits is left",
        "remove it",
    ),
    (
        "--training.trainable '[\"*.bias\"]' --training.frozen '[\"embedding.*\"]'",
        "training.frozen: the pattern embedding.* has no effect: nothing that it fits is left to train by "
        "training.trainable;",
        "remove it",
    ),
    (
        '--training.trainable \'["*.bias", "*norm*"]\' --optimizer.weight_decay 0.1',
        "optimizer.weight_decay 0.1 has no effect: it is for matrices and tables, and none of them is trained",
        "set optimizer.weight_decay to 0",
    ),
    (
        "--optimizer.weight_decay 0.1 --optimizer.weight_decay_by_name '{\"*.weight\": 0.2}'",
        "optimizer.weight_decay 0.1 has no effect: it is for matrices and tables, and weight_decay_by_name says",
        "another for all that are trained; set optimizer.weight_decay to 0",
    ),
    (
        '--optimizer.weight_decay_by_name \'{"layers.0.*.bias": 0.1, "*.weight": 0.0, "layers.*": 0.2}\'',
        "optimizer.weight_decay_by_name: the pattern layers.0.*.bias has no effect: all that it fits is fitted by",
        "put it last, or remove it",
    ),
    ("--optimizer.weight_decay_by_name '{\"*.bias\": -0.1}'", "optimizer.weight_decay_by_name.*.bias: -0.1 is not", ""),
    (
        f"--optimizer '{MUON}' --training.trainable '[\"*.bias\"]'",
        "optimizer.name muon steps the matrices inside blocks",
        "use adamw",
    ),
    (
        f"--optimizer '{MUON}' --training.frozen '[\"layers.*.weight\"]'",
        "optimizer.name muon steps the matrices inside blocks",
        "use adamw",
    ),
]


@pytest.mark.parametrize(("arguments", "problem", "remedy"), CASES)
def test_what_cannot_be(tmp_path: Path, arguments: str, problem: str, remedy: str) -> None:
    with pytest.raises(TrainyardError) as caught:
        load_run(write_run(tmp_path / "run.yaml"), shlex.split(arguments))
    assert problem in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        "--training.trainable '[\"*.bias\"]' --training.frozen '[\"layers.0.*\"]'",
        "--training.frozen '[\"layers.[012].*\"]' --optimizer.weight_decay 0.1",
        "--training.trainable '[\"*.bias\"]' --optimizer.weight_decay_by_name '{\"*.bias\": 0.1}'",
        '--training.trainable \'["*.bias", "positions.*"]\' --optimizer.weight_decay 0.1',
        "--optimizer.weight_decay_by_name '{embedding.*: 0.0, positions.weight: 0.1}'",
        f"--optimizer '{MUON}' --training.trainable '[\"layers.3.mlp.*\"]'",
        '--optimizer.weight_decay_by_name \'{"layers.*": 0.2, "layers.0.*": 0.1, "*.bias": 0.3}\'',
    ],
)
def test_what_can_be(tmp_path: Path, arguments: str) -> None:
    load_run(write_run(tmp_path / "run.yaml"), shlex.split(arguments))
