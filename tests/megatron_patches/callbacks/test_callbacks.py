"""What a run leaves for people: log lines, TensorBoard, Weights & Biases; and what stops it."""

import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.console_log import ConsoleLog, outlook_line, step_line
from megatron_patches.callbacks.event_recorder import EventRecorder
from megatron_patches.callbacks.finite_guard import FiniteGuard
from megatron_patches.callbacks.logging_config import WandbConfig
from megatron_patches.callbacks.tensorboard_log import TensorBoardLog
from megatron_patches.callbacks.wandb_log import WandbLog, earlier_steps
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.events import tensorboard_files
from megatron_patches.events.reading import effective, read_events
from megatron_patches.events.writing import EventWriter
from megatron_patches.run.progress import Message, Outcome, Progress, StepRecord
from megatron_patches.run.run_directory import Launch, start_launch
from megatron_patches.training.device_numbers import DeviceNumbers
from megatron_patches.training.trainer import Trainer
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tests.wandb_record import history

RECORD = StepRecord(
    step=5, samples=40, tokens=640, batch_size=8, loss=5.25, learning_rate=6e-4, grad_norm=1.5, seconds=2.0,
    tokens_per_second=2000.0, tflops_per_process=400.0,
)  # fmt: skip


TIME = re.compile(r"\d\d:\d\d:\d\d ")


def test_a_step_in_one_readable_line() -> None:
    assert step_line(RECORD, 65) == " 5/65 loss 5.2500 lr 6.0e-4 norm 1.5 2.00s 2.0k t/s 400TF"
    on_a_cpu = replace(RECORD, tflops_per_process=0.0004, memory_bytes=352_000_000, seconds=0.0523)
    assert step_line(on_a_cpu, 65) == " 5/65 loss 5.2500 lr 6.0e-4 norm 1.5 52ms 2.0k t/s 352MB"


def test_a_step_with_its_time_of_day_is_80_columns_and_a_few_more_with_rare_numbers() -> None:
    """Of a run of 300,000 steps, on whatever device."""
    usual = replace(
        RECORD, step=12340, loss=2.34567, learning_rate=5.87e-5, grad_norm=0.1234, seconds=0.512,
        tokens_per_second=412345.0, tflops_per_process=145.0, memory_bytes=12_345_678_901,
    )  # fmt: skip
    assert step_line(usual, 300_000) == " 12340/300000 loss 2.3457 lr 5.9e-5 norm 0.12 0.51s 412k t/s 145TF 12GB"
    assert len(f"12:34:56 {step_line(usual, 300_000)}") == 80
    for loss, norm, seconds, speed, tflops, memory in product(
        (0.02, 12.34567, 9.99999), (1.0, 99.96, 0.012), (0.0234, 9.999, 45.67, 120.0), (999.7, 9_999_999.0),
        (0.01, 46.7, 1999.0), (512_000_000, 139_000_000_000),
    ):  # fmt: skip
        record = replace(
            usual, loss=loss, grad_norm=norm, seconds=seconds, tokens_per_second=speed, tflops_per_process=tflops,
            memory_bytes=memory,
        )  # fmt: skip
        assert len(f"12:34:56 {step_line(record, 300_000)}") <= 83


def test_numbers_out_of_the_usual_are_shown_as_they_are() -> None:
    odd = replace(RECORD, loss=math.nan, grad_norm=math.inf, seconds=3600.0, learning_rate=0.0, tokens_per_second=0.5)
    assert step_line(odd, 65) == " 5/65 loss nan lr 0.0e0 norm inf 3600s 0.5 t/s 400TF"


def test_padding_is_shown_where_there_is_any() -> None:
    assert step_line(replace(RECORD, padding=0.01234), 65).endswith(" 400TF padding 1.2%")
    assert step_line(replace(RECORD, padding=0.0), 65) == step_line(RECORD, 65)


def test_mfu_only_where_the_peak_is_known() -> None:
    assert outlook_line(RECORD, 65, 60.0, None) == "8% of the steps, 640 tokens; 1:00:00 to go"
    assert outlook_line(RECORD, 65, 60.0, 989.4).endswith(" to go, MFU 40.4%")


class Listener(Callback):
    """Keeps what it hears; answers a step with a message, as the finite guard does."""

    def __init__(self, name: str, heard: list[tuple[str, str]]) -> None:
        self.name, self.heard = name, heard

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        self.heard.append((self.name, type(record).__name__))
        if self.name == "first" and isinstance(record, StepRecord):
            trainer.emit(Message("a step"))


def test_records_reach_all_callbacks_in_their_order() -> None:
    heard: list[tuple[str, str]] = []
    nothing: Any = None
    trainer = Trainer(
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        [Listener("first", heard), Listener("last", heard)],
    )
    trainer.emit(RECORD)
    assert heard == [("first", "StepRecord"), ("first", "Message"), ("last", "Message"), ("last", "StepRecord")]


def test_a_kind_that_nobody_knows_is_passed_over(tmp_path: Path, small_data: SmallData) -> None:
    """So a new kind of record needs a change of those alone who care."""
    unknown: Any = object()
    loop: Any = None
    log = ConsoleLog(tmp_path / "log", small_data.run(tmp_path), peak=None)
    events = EventRecorder(EventWriter(tmp_path / "events", "0001", "trainer"))
    for callback in (Callback(), log, events, TensorBoardLog(tmp_path), FiniteGuard()):
        callback.on_record(loop, unknown)
        callback.on_record(loop, Message("before the start"))
        callback.close()
    assert TIME.sub("", (tmp_path / "log").read_text()) == "before the start\n"
    assert [event.facts for event in read_events(tmp_path / "events")] == [{"text": "before the start"}]


def test_no_log_is_written_through_a_link(tmp_path: Path, small_data: SmallData) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(TrainingFailed, match="log cannot be written"):
        ConsoleLog(tmp_path / "log", small_data.run(tmp_path), peak=None)
    assert (tmp_path / "victim").read_text() == "mine"


def train(small_data: SmallData, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Launch:
    monkeypatch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
    launch = start_launch(small_data.run(folder, arguments))
    run_on_ranks(train_launch, 1, str(launch.directory))
    return launch


def test_tensorboard_shows_each_step_once_after_a_resume(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    until_5 = overrides(training__steps=5, schedule__decay_end=5)
    launch = train(small_data, tmp_path, monkeypatch, *until_5)
    shutil.rmtree(launch.run.checkpoints / "step-0000000005")  # so steps 4 and 5 are rolled back, and a validation
    train(small_data, tmp_path, monkeypatch, "--training.steps=8", "--schedule.decay_end=5")
    board = EventAccumulator(str(launch.run.tensorboard))
    board.Reload()
    loss = {scalar.step: scalar.value for scalar in board.Scalars("training/loss")}
    expected = {e.facts["step"]: e.facts["loss"] for e in effective(read_events(launch.run.events), "step")}
    assert [scalar.step for scalar in board.Scalars("training/loss")] == list(range(1, 9))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert [scalar.step for scalar in board.Scalars("validation/loss")] == [4, 8]


def test_the_log_has_a_line_for_each_step_and_what_happened_between(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = train(small_data, tmp_path, monkeypatch, "--logging.every_steps=2")
    lines = (launch.run.logs / "0001.log").read_text().splitlines()
    assert all(TIME.match(line) and len(line) <= 80 for line in lines)
    said = [TIME.sub("", line, count=1) for line in lines]
    assert [line.split(" ")[0] for line in said if " loss " in line and "/" in line] == [f"{n}/8" for n in (2, 4, 6, 8)]
    assert all(re.search(r"\d(ms|s) .* t/s \d+MB$", line) for line in said if "/8 loss" in line)
    saved = [line for line in said if line.startswith("saved")]
    assert [line.split(" (")[0] for line in saved] == [f"saved step-000000000{n}" for n in (3, 6, 8)]
    assert all(re.search(r"\(\d+ kB in \d+\.\d\d s, waited \d+\.\d\d s\)", line) for line in saved)
    assert sum(line.startswith("validation after step") for line in said) == 2
    assert said[-1] == "finished at step 8 of 8" and "MFU" not in "".join(lines)


def test_weights_and_biases_has_one_record_of_all_launches(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first launch goes to step 5 and its last checkpoint is lost: the second begins at 3, the third at 6."""
    pytest.importorskip("wandb")
    arguments = overrides(schedule__decay_end=8, logging__wandb="{project: tests}")
    launch = train(small_data, tmp_path, monkeypatch, *arguments, "--training.steps=5")
    shutil.rmtree(launch.run.checkpoints / "step-0000000005")
    train(small_data, tmp_path, monkeypatch, *arguments, "--training.steps=6")
    train(small_data, tmp_path, monkeypatch, *arguments, "--training.steps=8")
    identity = read_manifest(launch.run.manifest).facts["wandb_id"]
    [folder] = (launch.run.path / "wandb").glob("offline-run-*")
    shown = history(folder / f"run-{identity}.wandb")
    events = read_events(launch.run.events)
    assert [event.facts["step"] for event in events if event.kind == "start"] == [0, 3, 6]
    steps = {event.facts["step"]: event.facts for event in effective(events, "step")}
    assert list(shown) == list(steps) == list(range(1, 9))
    for step, facts in steps.items():
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "samples", "tokens"):
            assert shown[step][f"training/{name}"] == facts[name]
    losses = {event.facts["step"]: event.facts["loss"] for event in effective(events, "validation")}
    assert {step: row["validation/loss"] for step, row in shown.items() if "validation/loss" in row} == losses
    said = capfd.readouterr()
    assert "wandb:" not in said.err + said.out
    assert f"Weights & Biases: wandb sync {folder} uploads the run" in (launch.run.logs / "0003.log").read_text()


def events_of(folder: Path, *launches: tuple[int, range]) -> Path:
    """Events of launches that began at a step, and had these."""
    for number, (start, steps) in enumerate(launches, 1):
        writer = EventWriter(folder / "events", f"{number:04d}", "trainer")
        writer.write("start", step=start)
        for step in steps:
            writer.write("step", step=step, loss=float(number) if step != 2 else math.nan, samples=8 * step)
        writer.close()
    return folder / "events"


def test_earlier_steps_are_those_that_were_not_rolled_back(tmp_path: Path) -> None:
    found = dict(earlier_steps(events_of(tmp_path, (0, range(1, 6)), (3, range(4, 7)), (6, range(0))), 6))
    assert [found[step]["training/loss"] for step in (1, 3, 4, 6)] == [1.0, 1.0, 2.0, 2.0]
    assert math.isnan(found[2]["training/loss"]) and found[6]["training/samples"] == 48.0 and len(found) == 6
    assert not list(earlier_steps(tmp_path / "none", 0))


@pytest.mark.parametrize(("missing", "stays"), [((0, range(1, 4)), False), ((0, range(1, 3)), True)])
def test_an_older_record_stays_where_events_lack_what_it_has(
    tmp_path: Path, missing: tuple[int, range], stays: bool
) -> None:
    log = stand_in_log(tmp_path)
    older, own = (tmp_path / "wandb" / f"offline-run-{day}-abcd1234" for day in (1, 2))
    for folder in (older, own, tmp_path / "wandb" / "offline-run-1-another0", tmp_path / "kept"):
        folder.mkdir(parents=True)
    (tmp_path / "wandb" / "offline-run-0-abcd1234").symlink_to(tmp_path / "kept")
    assert log._write_earlier(own, "abcd1234", events_of(tmp_path, missing, (3, range(4, 5))), 4)
    assert older.is_dir() == stays and own.is_dir() and (tmp_path / "kept").is_dir()
    assert (tmp_path / "wandb" / "offline-run-1-another0").is_dir()
    assert ("the events lack steps" in log._said.get_nowait()) if stays else log._said.empty()


def test_a_launch_without_time_for_the_earlier_steps_leaves_the_older_record(tmp_path: Path) -> None:
    log = stand_in_log(tmp_path)
    (tmp_path / "wandb" / "offline-run-1-abcd1234").mkdir(parents=True)
    log._hurry.set()
    own = tmp_path / "wandb" / "offline-run-2-abcd1234"
    assert not log._write_earlier(own, "abcd1234", events_of(tmp_path, (0, range(1, 4))), 3)
    assert (tmp_path / "wandb" / "offline-run-1-abcd1234").is_dir()


def stand_in_log(folder: Path) -> WandbLog:
    """Writes to nowhere."""
    pytest.importorskip("wandb")
    log = WandbLog(WandbConfig(project="tests"))
    log._run = SimpleNamespace(log=lambda numbers, step: None)
    return log


def test_weights_and_biases_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    def fail(numbers: dict[str, float], step: int) -> None:
        raise OSError(28, "No space left on device")

    log = stand_in_log(tmp_path)
    log._run.log = fail
    log._pending.put((1, {}))
    log._write(tmp_path, "abcd1234", None)
    assert log._said.get_nowait().startswith("Weights & Biases gets nothing more in this launch: OSError: [Errno 28]")


class Loop:
    """What `WandbLog` uses of a trainer before and after the steps."""

    def __init__(self, small_data: SmallData, folder: Path) -> None:
        self.config = small_data.run(folder, ["--logging.wandb", "{project: tests}"])
        self.launch = start_launch(self.config)
        self.progress, self.said = Progress(), list[str]()

    def emit(self, message: Message) -> None:
        self.said.append(message.text)


class ServiceGone(Exception):
    """As wandb's own, which have no base in common."""


def test_weights_and_biases_that_cannot_end_does_not_fail_a_run_that_has(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    loop: Any = Loop(small_data, tmp_path)
    log = stand_in_log(tmp_path)

    def fail() -> None:
        raise ServiceGone("the service was killed")

    torn_down: list[bool] = []
    monkeypatch.setattr(log._wandb, "teardown", lambda: torn_down.append(True))
    log._run.finish = fail
    log.on_end(loop, Outcome.FINISHED)
    log.close()
    assert torn_down == [True], "at the process's end it would be a traceback"
    assert loop.said == ["Weights & Biases gets nothing more in this launch: ServiceGone: the service was killed"]


@pytest.mark.parametrize("resumed", [False, True])
def test_online_a_rollback_begins_a_record_of_its_own(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """The service takes steps in ascending order alone: those after the rollback would be left out of the older one."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    loop: Any = Loop(small_data, tmp_path)
    loop.config = small_data.run(tmp_path, ["--logging.wandb", "{project: tests, mode: online}"])
    loop.progress.step = 3
    log = WandbLog(loop.config.logging.wandb)
    events_of(loop.launch.run.path, (0, range(1, 6)))
    rolled_back = loop.launch.run.launches / "0002"
    rolled_back.mkdir()
    (rolled_back / "began.json").write_text('{"step": 3, "checkpoint": null, "rollback": true}')
    asked: dict[str, Any] = {}
    logged: list[int] = []

    def init(**arguments: object) -> SimpleNamespace:
        asked.update(arguments)
        settings = SimpleNamespace(sync_dir=str(tmp_path / "wandb" / "run-1"))
        log_step = lambda numbers, step: logged.append(step)  # noqa: E731
        return SimpleNamespace(settings=settings, url="https://x", resumed=resumed, log=log_step, finish=lambda: None)

    monkeypatch.setattr(log._wandb, "setup", lambda *_: None)
    monkeypatch.setattr(log._wandb, "teardown", lambda: None)
    monkeypatch.setattr(log._wandb, "init", init)
    log.on_start(loop)
    log.on_end(loop, Outcome.FINISHED)
    identity = read_manifest(loop.launch.run.manifest).facts["wandb_id"]
    assert (asked["id"], asked["name"]) == (f"{identity}-2", "tr900a-28K-small from step 3")
    assert logged == ([] if resumed else [1, 2, 3]), "what that record has already is not written again"


def test_weights_and_biases_that_cannot_begin(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    loop: Any = Loop(small_data, tmp_path)
    log = stand_in_log(tmp_path)
    log._run = None
    errors: list[Exception] = [ServiceGone("no room"), log._wandb.errors.UsageError("no API key configured")]

    def fail(**_: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(log._wandb, "setup", lambda *_: None)
    monkeypatch.setattr(log._wandb, "init", fail)
    log.on_start(loop)
    log.on_record(loop, RECORD)
    log.on_end(loop, Outcome.FINISHED)
    assert loop.said == ["Weights & Biases gets nothing more in this launch: ServiceGone: no room"]
    assert log._pending.empty(), "nobody would take it"
    with pytest.raises(TrainyardError, match="no API key configured; `wandb login` on this machine, or write"):
        log.on_start(loop)


def train_with_a_bad_gradient(launch_directory: str) -> None:
    """Train; in step 5 a weight of the loss is infinite."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def spoil(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        batches = read(self, consumed)
        return [replace(batch, weights=batch.weights * math.inf) for batch in batches] if consumed == 32 else batches

    TrainingBatches.at = spoil  # type: ignore[method-assign]
    train_launch(launch_directory)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_that_is_no_number_stops_all_ranks_and_spoils_nothing(
    ranks: int, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    config = small_data.run(tmp_path)
    launch = start_launch(config)
    with pytest.raises(RankFailed, match=r"step 5: loss is (inf|nan), gradient norm is .*; the update was left out"):
        run_on_ranks(train_with_a_bad_gradient, ranks, str(launch.directory))
    last = effective(read_events(launch.run.events), "step")[-1]
    failure = read_events(launch.run.events)[-1]
    assert failure.kind == "failure" and failure.facts["text"].startswith("step 5: loss is")
    assert last.facts["step"] == 5 and re.fullmatch("inf|nan", last.facts["loss"]), "the bad step is on record"

    run_on_ranks(train_launch, ranks, str(start_launch(config).directory))
    assert all(math.isfinite(e.facts["loss"]) for e in effective(read_events(launch.run.events), "step"))


def test_numbers_on_their_way_are_those_of_their_step() -> None:
    """The trainer's tensors are written over by later steps; what was sent off before is not."""
    values = torch.tensor([5.5, 1.25])
    numbers = DeviceNumbers(torch.stack([*values]))
    values.zero_()
    assert numbers.read() == [5.5, 1.25]


def test_a_run_goes_on_where_the_disk_of_its_log_is_full(
    small_data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ConsoleLog(tmp_path / "log", small_data.run(tmp_path), peak=None)
    log._file.close()
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115 - close() closes it
    for text in ("one", "two"):
        log.print_line(text)
    log.on_failure(SimpleNamespace(progress=Progress(step=3)), RuntimeError("broken"))  # type: ignore[arg-type]
    log.close()
    said = TIME.sub("", capsys.readouterr().out).splitlines()
    assert said == [
        f"{tmp_path}/log cannot be written to (No space left on device): lines are missing there",
        "one",
        "two",
    ]


@pytest.mark.slow  # a process, whose stdout is given up
@pytest.mark.parametrize("console", ["pipe", "full"])
def test_a_run_goes_on_where_nobody_reads_its_console(small_data: SmallData, tmp_path: Path, console: str) -> None:
    run = small_data.write(tmp_path / "tr900-tests", "tr900a-28K-small")
    program = (
        "import sys; from pathlib import Path; from megatron_patches.callbacks.console_log import ConsoleLog; "
        "from megatron_patches.run.reading import load_run; "
        f"log = ConsoleLog(Path({str(tmp_path / 'log')!r}), load_run(Path({str(run)!r})), None); "
        "[log.print_line(text) for text in ('one', 'two')]; log.close()"
    )
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-c", program]
    stdout = writing if console == "pipe" else full
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=CHECKOUT)
    os.close(writing)
    os.close(full)
    why = "Broken pipe" if console == "pipe" else "No space left on device"
    note = f"the console cannot be written to ({why}): from here on lines are in this file alone"
    assert (done.returncode, done.stderr) == (0, "")
    assert TIME.sub("", (tmp_path / "log").read_text()).splitlines() == ["one", note, "two"]


class _Loop:
    """What `TensorBoardLog` uses of a trainer."""

    def __init__(self) -> None:
        self.progress, self.said = Progress(step=4), list[str]()

    def emit(self, message: Message) -> None:
        self.said.append(message.text)


@pytest.mark.parametrize("when", ["start", "step", "end", "close"])
def test_tensorboard_is_given_up_where_its_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    loop: Any = _Loop()
    log = TensorBoardLog(tmp_path)

    def fill() -> None:
        """From now on the file is a device without room."""
        if when == "start":
            monkeypatch.setattr(Path, "open", lambda *_: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
        else:
            [path] = tmp_path.glob("*tfevents*")
            [number] = [each for each in Path("/proc/self/fd").iterdir() if _leads_to(each, path)]
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, int(number.name))
            os.close(full)

    for moment, act in {
        "start": lambda: log.on_start(loop),
        "step": lambda: log.on_record(loop, RECORD),
        "end": lambda: log.on_end(loop, Outcome.FINISHED),
        "close": log.close,
    }.items():
        if moment == "step":
            monkeypatch.setattr(tensorboard_files, "_FLUSH_SECONDS", 0.0 if when == "step" else 1e9)
        if moment == when:
            if when == "close":
                log.on_record(loop, RECORD)
            fill()
        act()
    told = capsys.readouterr().err if when == "close" else "".join(loop.said)
    assert "TensorBoard gets nothing more in this launch" in told and "No space left on device" in told
    assert len(loop.said) == (when != "close")


def _leads_to(descriptor: Path, path: Path) -> bool:
    try:
        return descriptor.readlink() == path
    except OSError:
        return False


def test_tensorboard_says_nothing_when_its_folder_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node says it, and ends the run."""
    monkeypatch.setattr(tensorboard_files, "_FLUSH_SECONDS", 0.0)
    loop: Any = _Loop()
    log = TensorBoardLog(tmp_path / "board")
    log.on_start(loop)
    shutil.rmtree(tmp_path / "board")
    log.on_record(loop, RECORD)
    log.on_end(loop, Outcome.FINISHED)
    log.close()
    assert not loop.said and capsys.readouterr().err == ""
