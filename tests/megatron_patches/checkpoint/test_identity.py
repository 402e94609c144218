"""What must stay the same for a checkpoint to be continued, also for checkpoints from before a key existed."""

from pathlib import Path
from typing import Any

import pytest

from megatron_patches.checkpoint.identity import differences, run_identity
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from tests.small_run import write_run

# as version 0.1.0 would have saved it, but for the sizes of vocabulary and fused matrices
OF_0_1_0: dict[str, Any] = {
    "name": "run", "model.layers": 4, "model.hidden_size": 16, "model.attention_heads": 4, "model.ffn_size": 64,
    "model.vocab_size": 320, "model.position_embedding": {"name": "learned"}, "model.activation": "gelu_tanh",
    "model.norm_epsilon": 1e-5, "model.tied_head": True, "model.hidden_dropout": 0.0, "model.attention_dropout": 0.0,
    "model.init_std": 0.02, "model.init_residual_scaling": True, "data.sequence_length": 8, "data.split": "90,10",
    "dataset": "d" * 64, "tokenizer": "t" * 64, "training.global_batch_size": 8, "training.precision": "fp32",
    "training.seed": 1234, "optimizer.name": "adamw", "optimizer.weight_decay": 0.0, "optimizer.gradient_clip": 1.0,
    "optimizer.beta1": 0.9, "optimizer.beta2": 0.98, "optimizer.epsilon": 1e-8,
}  # fmt: skip


def run(tmp_path: Path, *arguments: str) -> RunConfig:
    return load_run(write_run(tmp_path / "run.yaml"), arguments)


def found(saved: dict[str, Any], config: RunConfig) -> list[str]:
    return differences(saved, run_identity(config, {"dataset": "d" * 64}, "t" * 64), config)


def test_a_key_that_did_not_exist_had_its_default(tmp_path: Path) -> None:
    assert found(OF_0_1_0, run(tmp_path)) == []


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ("--model.embedding_norm=true", "model.embedding_norm is false in the checkpoint and true now"),
        ("--objective.name=prefix_lm", "objective.name is causal in the checkpoint and prefix_lm now"),
        ("--objective.z_loss=1e-4", "objective.z_loss is 0.0 in the checkpoint and 0.0001 now"),
        ("--training.frozen=['*.bias']", 'training.frozen is [] in the checkpoint and ["*.bias"] now'),
        ("--training.batch_ramp={start: 4, increment: 4, samples: 8}", "training.batch_ramp is null"),
        ("--optimizer={name: sgd, learning_rate: 1}", "optimizer.name is adamw in the checkpoint and sgd now"),
    ],
)
def test_another_setting_is_another_run(tmp_path: Path, arguments: str, phrase: str) -> None:
    assert phrase in "; ".join(found(OF_0_1_0, run(tmp_path, arguments)))


@pytest.mark.parametrize("arguments", ["--training.steps=9", "--parallel.tensor=2", "--training.recomputation=full"])
def test_length_layout_and_memory_may_change(tmp_path: Path, arguments: str) -> None:
    assert found(OF_0_1_0, run(tmp_path, arguments)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--optimizer.weight_decay_by_name={'*.bias': 0.5}", "--optimizer.beta2=0.9", "--optimizer.epsilon=1e-6",
        "--optimizer.gradient_clip=0", "--optimizer.weight_decay=0.5",
    ],
)  # fmt: skip
def test_the_optimizers_numbers_may_change(tmp_path: Path, arguments: str) -> None:
    assert found(OF_0_1_0, run(tmp_path, arguments)) == []


SGD = "--optimizer={name: sgd, learning_rate: 1, momentum: %s}"


@pytest.mark.parametrize(("before", "now", "same"), [(0.9, 0.5, True), (0.9, 0, False), (0, 0.9, False), (0, 0, True)])
def test_a_velocity_cannot_appear_or_go(tmp_path: Path, before: float, now: float, same: bool) -> None:
    old = {key: value for key, value in OF_0_1_0.items() if not key.startswith("optimizer.")}
    old |= {"optimizer.name": "sgd", "optimizer.momentum": before, "optimizer.gradient_clip": 1.0}
    saved = [old, run_identity(run(tmp_path, SGD % before), {"dataset": "d" * 64}, "t" * 64)]
    for identity in saved:
        phrases = found(identity, run(tmp_path, SGD % now))
        assert phrases == [] if same else "optimizer.momentum is" in phrases[0], phrases


def test_weights_are_told_by_source_with_the_way_to_change_them(tmp_path: Path) -> None:
    config = run(tmp_path)
    saved, wanted = ({**run_identity(config, {}, "t"), "blend": [["web", n], ["code", 65536 - n]]} for n in (9, 8))
    assert differences(saved, wanted, config) == [
        "the weights of data.sources, in parts of 65,536, are web 9, code 65527 in the checkpoint and web 8, code "
        "65528 now, in this order (other weights from a later step on go into data.changes)"
    ]
    many = [[f"s{number:02}", 1] for number in range(30)]
    assert "s11 1 and 18 more now" in differences(saved, {**wanted, "blend": many}, config)[0]
    assert differences({**saved, "blend": "?"}, wanted, config) == [
        'blend is ? in the checkpoint and [["web", 8], ["code", 65528]] now'
    ], "damaged, or of another version"
