"""What must hold between sections, and the values that the messages offer."""

import shlex
from pathlib import Path

import pytest

from data_tools.errors import TrainyardError
from megatron_patches.config import load_run
from megatron_patches.configuration.divisibility import divisors_near, multiples_near
from tests.small_run import write_run

CASES = [
    ("--training.precision fp16", "training.precision fp16 needs a loss scaler", "use bf16 or fp32"),
    ("--schedule.warmup_steps 10", "schedule.warmup_steps 10 leaves nothing of the 10 steps", "use at most 9"),
    ("--schedule.decay_steps 2", "schedule.warmup_steps 2 leaves nothing of the 2 steps", "use at most 1"),
    ("--schedule.decay_steps 11", "schedule.decay_steps 11 is beyond training.steps 10", "use at most 10"),
    ("--schedule.final_learning_rate 1e-3", "is above the peak, optimizer.learning_rate 0.0006", "at most 0.0006"),
    ("--checkpoint.every_steps 11", "checkpoint.every_steps 11 is beyond training.steps 10", "use at most 10"),
    ("--logging.every_steps 11", "logging.every_steps 11 is beyond training.steps 10", "use at most 10"),
    ("--evaluation '{every_steps: 11, samples: 1}'", "evaluation.every_steps 11 is beyond", "use at most 10"),
    ("--parallel.tensor 3", "model.attention_heads 4 is not divisible by parallel.tensor 3", "works: 2 or 4"),
    ("--model.vocab_size 322 --parallel.tensor 4", "vocab_size 322 is not divisible", "model.vocab_size: 320 or 324"),
    ("--model.ffn_size 62 --parallel.tensor 4", "ffn_size 62 is not divisible", "model.ffn_size: 60 or 64"),
    ("--parallel.pipeline 3", "model.layers 4 is not divisible by parallel.pipeline 3", "2 or 4"),
    ("--parallel.pipeline 3", "model.layers 4 is not divisible by parallel.pipeline 3", "model.layers: 3 or 6"),
    ("--training.micro_batch_size 3", "global_batch_size 8 is not divisible", "global_batch_size: 6 or 9"),
    ("--training.micro_batch_size 3", "global_batch_size 8 is not divisible", "micro_batch_size: 2 or 4"),
]


@pytest.mark.parametrize(("words", "problem", "remedy"), CASES)
def test_what_cannot_be(tmp_path: Path, words: str, problem: str, remedy: str) -> None:
    with pytest.raises(TrainyardError) as caught:
        load_run(write_run(tmp_path / "run.yaml"), shlex.split(words))
    matching = [line for line in str(caught.value).splitlines() if problem in line]
    assert len(matching) == 1
    assert remedy in matching[0]


def test_validation_needs_documents(tmp_path: Path) -> None:
    words = ["--evaluation", "{every_steps: 2, samples: 5}", "--data.split", "1,0,1"]
    with pytest.raises(TrainyardError, match=r"data.split 1,0,1 gives validation no documents .* asks for 5 samples"):
        load_run(write_run(tmp_path / "run.yaml"), words)


@pytest.mark.parametrize(
    "words",
    [
        ["--schedule.warmup_steps", "9"],
        ["--schedule.decay_steps", "10"],
        ["--schedule.final_learning_rate", "6e-4"],
        ["--schedule", "{name: constant, warmup_steps: 9}"],
        ["--checkpoint.every_steps", "10"],
        ["--parallel.tensor", "4", "--parallel.pipeline", "4"],
        ["--training.micro_batch_size", "8"],
        ["--model.position_embedding", "none"],
    ],
)
def test_the_last_values_that_work(tmp_path: Path, words: list[str]) -> None:
    load_run(write_run(tmp_path / "run.yaml"), words)


def test_offered_values_work() -> None:
    for value in range(1, 60):
        for other in range(1, 20):
            assert all(multiple % other == 0 and multiple > 0 for multiple in multiples_near(value, other))
            assert all(value % divisor == 0 for divisor in divisors_near(value, other))
            assert multiples_near(value, other)
            assert divisors_near(value, other)
    assert multiples_near(10, 4) == [8, 12]
    assert multiples_near(3, 4) == [4]
    assert divisors_near(12, 5) == [4, 6]
    assert divisors_near(12, 20) == [12]
