"""Megatron's options are answered with ours, on a command line and in a file; each answer is a key that exists."""

from pathlib import Path

import pytest

from megatron_patches.configuration.fields import known_fields
from megatron_patches.configuration.megatron_flags import _ELSEWHERE, _KEYS, known_as
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.plan import main
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from tests.small_run import write_run


@pytest.mark.parametrize("option", _KEYS)
def test_each_answer_is_a_key_of_a_run(option: str) -> None:
    keys = {key for key, _ in known_fields(RunConfig)}
    answered = [word.split()[0] for word in _KEYS[option].split(" and --")]
    assert set(answered) <= keys
    assert option not in RunConfig.model_fields


def test_no_option_has_two_answers() -> None:
    assert not _KEYS.keys() & _ELSEWHERE.keys()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num-layers", "12"], "--num-layers is Megatron's: here --model.layers"),
        (["--num-layers=12"], "--num-layers is Megatron's: here --model.layers"),
        (["--micro-batch-size", "4"], "--micro-batch-size is Megatron's: here --training.micro_batch_size"),
        (["--micro_batch_size", "4"], "nearest: training.micro_batch_size"),
        (["--train_iters", "4"], "--train_iters is Megatron's: here --training.steps"),
        (["--bf16"], "--bf16 is Megatron's: here --training.precision bf16"),
        (["--training.steps", "8", "--lr", "1e-4", "--bf16", "--save", "x"], "--lr is Megatron's: here --optimizer"),
        (["--load", "x"], "tools/import-checkpoint"),
    ],
)
def test_on_a_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    run = write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml")
    assert main([str(run), *words, "--local"]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.splitlines()) == 1 and said.startswith("error: ")


@pytest.mark.parametrize("key", ["num_layers", "num-layers", "model.num_layers", "training.train_iters"])
def test_in_a_file(tmp_path: Path, key: str) -> None:
    run = write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml")
    section, _, name = key.rpartition(".")
    base = tmp_path / "tr8-base" / "tr8b-1K-x.yaml"
    text = f"{section}: {{{name}: 8}}" if section else f"{name}: 8"
    base.write_text(f"why: x\nbase: {run.name}\n{text}\n")
    with pytest.raises(TrainyardError, match=rf"{key} is Megatron's: here (model.layers|training.steps)"):
        load_run(base)


def test_what_is_nobodys(tmp_path: Path) -> None:
    assert known_as("--layers") is None
    assert known_as("why") is None
