"""Saving beside training: what is written is the step's own state, saves do not pile up, requests are answered."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.marks import is_damaged, is_verified, pin_of
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.host_copy import HostCopy
from megatron_patches.checkpoint.size import checkpoint_size, free_space, space_problems
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import Event, read_events
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.run_directory import start_launch
from tests.megatron_patches.checkpoint.test_resume import stored_bytes
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tests.whole_state import whole_tensors


def train(small_data: SmallData, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, how=train_launch,
          ranks: int = 1) -> RunFolder:  # type: ignore[no-untyped-def]  # fmt: skip
    monkeypatch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
    launch = start_launch(small_data.run(folder, arguments))
    run_on_ranks(how, ranks, str(launch.directory))
    return launch.run


def saves(run: RunFolder) -> list[Event]:
    return [event for event in read_events(run.events) if event.kind == "checkpoint"]


def messages(run: RunFolder) -> list[str]:
    return [event.facts["text"] for event in read_events(run.events) if event.kind == "message"]


def train_with_slow_files(launch_directory: str) -> None:
    """Every file takes as long as several steps."""
    import time

    from megatron_patches.checkpoint import save

    write = save.write_pieces

    def slowly(path: Path, pieces: object) -> object:
        time.sleep(0.2)
        return write(path, pieces)  # type: ignore[arg-type]

    save.write_pieces = slowly  # type: ignore[assignment]
    train_launch(launch_directory)


EACH_STEP = overrides(checkpoint__every_steps=1, evaluation="null")


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_a_slow_save_holds_the_state_of_its_own_step(
    zero: int, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on over the same tensors while they are written."""
    arguments = [*EACH_STEP, *overrides(parallel__zero_stage=zero, training__steps=5)]
    slow = train(small_data, tmp_path / "slow", monkeypatch, *arguments, how=train_with_slow_files, ranks=2)
    plain = train(small_data, tmp_path / "plain", monkeypatch, *arguments, "--checkpoint.asynchronous=false", ranks=2)
    folders = list_checkpoints(slow.checkpoints)
    assert [folder.name for folder in folders] == [folder.name for folder in list_checkpoints(plain.checkpoints)]
    assert len(folders) == 5
    for folder in folders:
        assert stored_bytes(folder) == stored_bytes(plain.checkpoints / folder.name)


def test_a_save_waits_for_the_one_before_and_an_ephemeral_one_is_left_out(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides(
        training__steps=6, checkpoint__every_steps=3, checkpoint__ephemeral_every_steps=1, evaluation="null"
    )
    run = train(small_data, tmp_path, monkeypatch, *arguments, how=train_with_slow_files)
    assert [event.facts["step"] for event in saves(run)][-2:] == [3, 6]
    assert any(text.startswith("no ephemeral checkpoint of step 2: another") for text in messages(run))
    third = next(event.facts for event in saves(run) if event.facts["step"] == 3)
    assert third["reason"] == "interval" and 0 < third["stall_seconds"] < third["write_seconds"]
    assert third["bytes"] > 500_000
    assert [folder.name for folder in list_checkpoints(run.checkpoints)] == ["step-0000000006", "step-0000000003"]


def train_and_ask(launch_directory: str) -> None:
    """While step 3 reads its data, somebody asks for a checkpoint; the trainer looks once a second, here at once."""
    from megatron_patches.callbacks import save_request
    from megatron_patches.objectives.batches import TrainingBatches

    save_request.SECONDS_BETWEEN_LOOKS = 0.0
    read = TrainingBatches.at

    def read_and_ask(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        if consumed == 2 * 8 and os.environ["RANK"] == "0":
            (Path(launch_directory).parents[1] / "save-requested").write_text("before the power cut\n")
        return read(self, consumed)

    TrainingBatches.at = read_and_ask  # type: ignore[method-assign]
    train_launch(launch_directory)


def test_a_checkpoint_on_request_is_pinned_with_its_reason(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides(checkpoint__every_steps=8, checkpoint__keep_last=1)
    run = train(small_data, tmp_path, monkeypatch, *arguments, how=train_and_ask, ranks=2)
    assert [event.facts["step"] for event in saves(run)] == [4, 8]
    mark = pin_of(run.checkpoints / "step-0000000004")
    assert mark is not None and mark.reason == "asked for: before the power cut"
    assert not run.save_requested.exists()
    assert pin_of(run.checkpoints / "step-0000000008") is None


class OneRank:
    @staticmethod
    def from_rank_0(value: object) -> object:
        return value


def test_a_save_begun_before_it_was_asked_for_is_no_answer(tmp_path: Path) -> None:
    from megatron_patches.callbacks.save_request import SaveRequest
    from megatron_patches.parallel.votes import Question

    path, question = tmp_path / "save-requested", Question()
    path.write_text("now")
    request = SaveRequest(path, looks=True, question=question)
    question.verdict = 1
    assert request.answer(OneRank) == "asked for: now"  # type: ignore[arg-type]
    request.done({"interval"})
    assert path.exists(), "a kill now would lose the request"
    request.done({"asked for: now"})
    assert not path.exists()


REQUESTS = {
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a link to a secret": lambda path: (path.parent / "id_rsa").write_text("secret") and path.symlink_to("id_rsa"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "much text": lambda path: path.write_text("x" * 100_000),
    "controls": lambda path: path.write_text("\x1b]52;c;eA==\x07"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_an_odd_request_is_answered_once_and_holds_nothing_up(tmp_path: Path, kind: str) -> None:
    from megatron_patches.callbacks.save_request import SaveRequest
    from megatron_patches.parallel.votes import Question

    path, question = tmp_path / "save-requested", Question()
    REQUESTS[kind](path)
    request = SaveRequest(path, looks=True, question=question)
    question.verdict = 1
    reason = request.answer(OneRank)  # type: ignore[arg-type]
    told = {"controls": r"asked for: \x1b]52;c;eA==\x07"}
    assert reason == told.get(kind, "asked for")
    request.done({reason})
    assert path.is_dir() if kind == "a folder" else not path.is_symlink() and not path.exists()
    question.verdict = 1
    assert request.answer(OneRank) is None  # type: ignore[arg-type]


def test_old_ones_go_only_after_the_new_one_was_read_back(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides(checkpoint__every_steps=2, checkpoint__keep_last=2, parallel__zero_stage=1)
    run = train(small_data, tmp_path, monkeypatch, *arguments, ranks=2)
    assert [folder.name for folder in list_checkpoints(run.checkpoints)] == ["step-0000000008", "step-0000000006"]
    assert [event.facts["removed"] for event in saves(run)] == [[], [], ["step-0000000002"], ["step-0000000004"]]
    assert is_verified(run.checkpoints / "step-0000000008")


def train_on_a_disk_that_lies(launch_directory: str) -> None:
    """What is read back of step 6 is not what was written."""
    from megatron_patches import atomic_files
    from megatron_patches.checkpoint import save

    def spoil(path: Path) -> None:
        if "0006" in path.parent.name and path.name.startswith("optimizer"):
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        atomic_files.drop_from_page_cache(path)

    save.drop_from_page_cache = spoil
    train_launch(launch_directory)


def test_a_disk_that_lies_costs_no_older_checkpoint(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides(checkpoint__every_steps=2, checkpoint__keep_last=2)
    with pytest.raises(RankFailed, match="step-0000000006 is not what was just written"):
        train(small_data, tmp_path, monkeypatch, *arguments, how=train_on_a_disk_that_lies)
    run = RunFolder(tmp_path / "runs" / "tr900a-28K-small")
    assert [folder.name for folder in list_checkpoints(run.checkpoints)][1:] == ["step-0000000004", "step-0000000002"]
    train(small_data, tmp_path, monkeypatch, *arguments)
    assert any("skipping damaged step-0000000006" in text for text in messages(run))


def test_a_damaged_one_takes_no_good_ones_place(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2, 4 and 6 two stay; 6 is damaged, 4 is resumed, and 5 is the second good one beside it."""
    arguments = overrides(checkpoint__every_steps=2, checkpoint__keep_last=2, training__steps=6, schedule__decay_end=6)
    run = train(small_data, tmp_path, monkeypatch, *arguments)
    newest, older = list_checkpoints(run.checkpoints)
    path = newest / "optimizer-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    more = overrides(checkpoint__every_steps=5, checkpoint__keep_last=2, training__steps=7, schedule__decay_end=6)
    train(small_data, tmp_path, monkeypatch, *more)
    assert [folder.name for folder in list_checkpoints(run.checkpoints)] == [
        "step-0000000007", "step-0000000006", "step-0000000005",
    ]  # fmt: skip
    assert is_damaged(newest) and not older.exists()


def test_weights_alone_are_a_checkpoint_that_nothing_resumes_from(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides(training__steps=4, checkpoint__every_steps=4, checkpoint__weights_every_steps=2,
                      checkpoint__keep_last=1)  # fmt: skip
    run = train(small_data, tmp_path, monkeypatch, *arguments)
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["step-0000000004", "weights-0000000002", "weights-0000000004"]
    manifest = read_manifest(run.checkpoints / "weights-0000000004" / "manifest.json")
    assert manifest.facts["content"] == "weights"
    assert sorted(file.path for file in manifest.files) == [
        *("config.yaml", "tokenizer/manifest.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
        *("trainer.json", "weights-00000.safetensors"),
    ]
    alone, full = (whole_tensors(run.checkpoints / name) for name in ("weights-0000000004", "step-0000000004"))
    assert alone.keys() == {place for place in full if place[1] == "weight"}
    assert all(torch.equal(alone[place], full[place]) for place in alone)
    assert [folder.name for folder in list_checkpoints(run.checkpoints)] == ["step-0000000004"]


def test_a_spike_pins_the_checkpoints_around_it(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides(
        training__steps=30, checkpoint__every_steps=2, checkpoint__keep_last=1, checkpoint__pin_spikes_above=1.5,
        evaluation="null", training__seed=1,
    )  # fmt: skip
    run = train(small_data, tmp_path, monkeypatch, *arguments, how=train_with_a_spike)
    pinned = {folder.name: pin_of(folder) for folder in list_checkpoints(run.checkpoints) if pin_of(folder)}
    assert sorted(pinned) == ["step-0000000024", "step-0000000026"]
    assert all(re.match(r"spike at step 25: loss [\d.]+, median of the steps before", mark.reason)  # type: ignore[union-attr]
               for mark in pinned.values())  # fmt: skip
    assert any("; step-0000000024 and the next checkpoint are kept" in text for text in messages(run))
    late = overrides(checkpoint__every_steps=30, evaluation="null")
    arguments = [*arguments, *late]
    alone = train(small_data, tmp_path / "late", monkeypatch, *arguments, how=train_with_a_spike)
    assert any("; there is no checkpoint before it; the next one is kept" in text for text in messages(alone))


def train_with_a_spike(launch_directory: str) -> None:
    """The labels of step 25 weigh three times as much."""
    from dataclasses import replace

    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def spoil(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        batches = read(self, consumed)
        return [replace(batch, weights=batch.weights * 3) for batch in batches] if consumed == 24 * 8 else batches

    TrainingBatches.at = spoil  # type: ignore[method-assign]
    train_launch(launch_directory)


def test_the_copy_is_the_state_of_its_moment() -> None:
    pieces = [
        StatePiece("a", "weight", TensorSlice.whole((3,)), 0, torch.arange(3).bfloat16(), True),
        StatePiece("a", "master", TensorSlice.whole((3,)), 0, torch.rand(3), True),
        StatePiece("b", "weight", TensorSlice.whole((70,)), 0, torch.rand(70), True),
    ]
    copy = HostCopy(pieces)
    before = [piece.tensor.clone() for piece in pieces]
    copies = copy.take(pieces)
    for piece in pieces:
        piece.tensor.zero_()
    assert all(torch.equal(taken.tensor, kept) for taken, kept in zip(copies, before, strict=True))
    assert copy.bytes == 64 + 64 + 320
    assert copy.take(pieces[1:2])[0].tensor.data_ptr() == copies[1].tensor.data_ptr()


OPTIMIZERS = {
    "adamw": [],
    "sgd": ["--optimizer={name: sgd, learning_rate: 1e-2, momentum: 0.9}"],
    "sgd without momentum": ["--optimizer={name: sgd, learning_rate: 1e-2}"],
    "lion": ["--optimizer={name: lion, learning_rate: 1e-2}"],
    "muon": ["--optimizer={name: muon, learning_rate: 1e-2, rest: {learning_rate: 1e-2}}"],
    "frozen": ["--training.frozen=['embedding.*']"],
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_size_is_known_before(
    optimizer: str, precision: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = overrides(training__steps=2, checkpoint__every_steps=2, evaluation="null", schedule__warmup=0)
    arguments = [*short, *overrides(training__precision=precision), *OPTIMIZERS[optimizer]]
    run = train(small_data, tmp_path, monkeypatch, *arguments)
    found: dict[bool, int] = {True: 0, False: 0}
    for (_, kind), values in whole_tensors(run.checkpoints / "step-0000000002").items():
        found[kind == "weight"] += values.nbytes
    size = checkpoint_size(small_data.run(tmp_path, arguments))
    assert (size.weights, size.optimizer) == (found[True], found[False])


def test_no_space_for_the_next_save_is_said_before_training(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = small_data.run(tmp_path), tmp_path / "not" / "there"
    assert list(space_problems(config, folder, free_space(folder))) == []
    (problem,) = space_problems(config, folder, 400_000)
    assert "the next checkpoint takes 576 kB, and 400 kB are free there" in problem


def test_a_manifest_of_a_later_format_is_named_as_such(tmp_path: Path) -> None:
    from megatron_patches.artefacts.manifest import build_manifest

    content = build_manifest("checkpoint", files=[], facts={}).model_dump()
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "format": 2, "news": 1}))
    with pytest.raises(TrainyardError, match=r"is of format 2, which a later Trainyard wrote; this one reads format 1"):
        read_manifest(tmp_path / "manifest.json")
