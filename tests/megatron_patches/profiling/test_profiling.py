"""A profile of some steps: the trace, where the time goes, and that nothing else changes."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.autograd import DeviceType

from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import Event, effective, read_events
from megatron_patches.profiling.time_breakdown import KINDS, describe_breakdown, divide, seconds_by_kind
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

PROFILED = overrides(profile="{steps: 3, after_step: 2}")


def train(
    small_data: SmallData, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, ranks: int = 1
) -> tuple[Launch, list[Event]]:
    """A launch, and its events."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
    launch = start_launch(small_data.run(folder, arguments))
    run_on_ranks(train_launch, ranks, str(launch.directory))
    return launch, [event for event in read_events(launch.run.events) if event.launch == launch.id]


def of_kind(events: list[Event], kind: str) -> list[dict[str, Any]]:
    return [event.facts for event in events if event.kind == kind]


def spans_named(trace: Path, name: str) -> list[dict[str, Any]]:
    """What the trace has under a name, in the order of time."""
    found = [each for each in json.loads(trace.read_text())["traceEvents"] if each.get("name") == name]
    return sorted(found, key=lambda each: each["ts"])


def test_the_trace_has_the_steps_and_the_shares_are_the_whole_of_them(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, events = train(small_data, tmp_path, monkeypatch, *PROFILED)
    [found] = of_kind(events, "profile")
    assert (found["first_step"], found["step"], found["trace"]) == (3, 5, "trace-rank0.json")
    steps = spans_named(launch.trace, "step")
    assert len(steps) == len(spans_named(launch.trace, "data wait")) == len(spans_named(launch.trace, "optimizer")) == 3
    assert tuple(found["seconds"]) == KINDS
    whole = (steps[-1]["ts"] + steps[-1]["dur"] - steps[0]["ts"]) / 3e6
    assert sum(found["seconds"].values()) == pytest.approx(whole, rel=1e-3)
    assert all(found["seconds"][kind] > 0 for kind in KINDS if kind != "communication")
    for step, mark in zip(steps, spans_named(launch.trace, "optimizer"), strict=True):
        assert step["ts"] < mark["ts"] < step["ts"] + step["dur"]
    assert not list(launch.directory.glob("*.partial"))
    log = (launch.run.logs / "0001.log").read_text()
    [line] = [line for line in log.splitlines() if " profile of steps 3 to 5, " in line]
    shares = [float(share) for share in re.findall(r"\(([\d.]+)%\)", line)]
    assert len(shares) == len(KINDS) and sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("arguments", [["--parallel.tensor=2"], ["--parallel.pipeline=2"], ["--parallel.zero_stage=3"]])
def test_ranks_wait_for_messages(
    arguments: list[str], small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, events = train(small_data, tmp_path, monkeypatch, *PROFILED, *arguments, ranks=2)
    [found] = of_kind(events, "profile")
    seconds = found["seconds"]
    assert seconds["communication"] > 0.05 * sum(seconds.values()), "gloo's messages are waited for"
    assert [path.name for path in launch.directory.glob("trace*")] == ["trace-rank0.json"]


def test_a_profile_changes_no_number_and_each_launch_has_its_own(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_4 = overrides(training__steps=4, schedule__decay_end=4, profile="{steps: 2, after_step: 1}")
    until_8 = overrides(training__steps=8, schedule__decay_end=4)
    first, events = train(small_data, tmp_path / "with", monkeypatch, *until_4)
    before = first.trace.read_bytes()
    assert [(each["first_step"], each["step"]) for each in of_kind(events, "profile")] == [(2, 3)]
    second, events = train(small_data, tmp_path / "with", monkeypatch, *until_8, until_4[-1])
    assert [(each["first_step"], each["step"]) for each in of_kind(events, "profile")] == [(6, 7)]
    assert second.trace.is_file() and second.trace != first.trace and first.trace.read_bytes() == before
    train(small_data, tmp_path / "without", monkeypatch, *until_4[:-1])
    plain, events = train(small_data, tmp_path / "without", monkeypatch, *until_8)
    assert not plain.trace.exists() and not of_kind(events, "profile")
    with_it, without = (
        [(each.facts["loss"], each.facts["grad_norm"]) for each in effective(read_events(run.run.events), "step")]
        for run in (second, plain)
    )
    assert len(with_it) == 8 and with_it == without


def test_a_launch_that_ends_before_says_so(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_4 = overrides(training__steps=4, schedule__decay_end=4)
    train(small_data, tmp_path, monkeypatch, *until_4)
    arguments = overrides(training__steps=8, schedule__decay_end=4, profile="{steps: 3, after_step: 2}")
    launch, events = train(small_data, tmp_path, monkeypatch, *arguments)
    assert not list(launch.directory.glob("trace*"))
    said = [each["text"] for each in of_kind(events, "message")]
    assert any("needs 5 steps of a launch" in text and "this launch had 4" in text for text in said)


@pytest.mark.parametrize("damage", ["no folder", "cut off"])
def test_a_trace_that_cannot_be_written_leaves_the_run_alone(
    damage: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    launch = start_launch(small_data.run(tmp_path, PROFILED))
    run_on_ranks(train_without_a_place_for_the_trace, 1, str(launch.directory), damage)
    events = read_events(launch.run.events)
    said = [each["text"] for each in of_kind(events, "message")]
    assert any("the trace cannot be written" in text and "profile fewer steps" in text for text in said)
    assert of_kind(events, "end")[0]["outcome"] == "finished"
    assert not list(launch.directory.glob("trace*"))
    assert len(of_kind(events, "profile")) == 1, "where the time goes is known all the same"


def train_without_a_place_for_the_trace(launch_directory: str, damage: str) -> None:
    """Train; the trace is cut off, as on a full disk, or an error of the system."""
    from torch.profiler import profile

    def export(self: profile, path: str) -> None:
        if damage == "no folder":
            raise OSError(28, "No space left on device")
        Path(path).write_text('{"traceEvents": [{"ph": "X"')

    profile.export_chrome_trace = export  # type: ignore[method-assign, assignment]
    train_launch(launch_directory)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "{steps: 3, after_step: 6}"], "profile would end at step 9 (after_step 6 + steps 3), but the "
         "run has 8; use profile.after_step 5 at most"),
        (["--profile.steps", "9"], "use profile.steps 8 at most, with profile.after_step 0"),
        (["--profile", "{after_step: 6}"], "profile.steps"),
        (["--profile.steps", "0"], "profile.steps"),
    ],
)  # fmt: skip
def test_a_profile_that_would_not_be_made_is_refused(
    arguments: list[str], said: str, small_data: SmallData, tmp_path: Path
) -> None:
    with pytest.raises(TrainyardError, match=re.escape(said)):
        small_data.run(tmp_path, arguments)


@dataclass
class Traced:
    """An event as the profiler has it, in microseconds."""

    name: str
    start: float
    end: float
    thread: int = 1
    is_async: bool = False
    device_type: DeviceType = DeviceType.CPU
    time_range: Any = field(init=False)

    def __post_init__(self) -> None:
        self.time_range = SimpleNamespace(start=self.start, end=self.end)


def test_time_on_a_cpu_counts_once_and_waiting_for_a_message_is_communication() -> None:
    events = [
        Traced("step", 0, 1000),
        Traced("data wait", 0, 50),
        Traced("aten::sum", 10, 20),
        Traced("aten::linear", 100, 200),
        Traced("aten::addmm", 110, 200),
        Traced("aten::scaled_dot_product_attention", 200, 300),
        Traced("aten::bmm", 210, 290),
        Traced("SomeBackward0", 300, 350),
        Traced("c10d::allreduce_", 400, 410),
        Traced("gloo:all_reduce", 420, 500, thread=7, is_async=True),
        Traced("aten::mul", 450, 470),
        Traced("aten::mm", 500, 600, thread=9),
        Traced("optimizer", 700, 800),
        Traced("aten::mm", 710, 720),
        Traced("c10d::_allgather_base_", 730, 735),
        Traced("gloo:all_gather", 740, 760, thread=7, is_async=True),
    ]
    found = {kind: seconds * 1e6 for kind, seconds in seconds_by_kind(events, 1, on_gpu=False).items()}
    assert found == pytest.approx(
        {
            "GEMM": 90, "attention": 100, "communication": 80 + 30, "optimizer": 70, "other kernels": 10 + 20,
            "data wait": 50, "host gaps": 550,
        }
    )  # fmt: skip


def test_time_on_a_gpu_counts_once_and_a_hidden_message_costs_nothing() -> None:
    def kernel(name: str, start: float, end: float) -> Traced:
        return Traced(name, start, end, device_type=DeviceType.CUDA)

    events = [
        Traced("step", 0, 500),
        Traced("data wait", 0, 50),
        Traced("aten::mm", 50, 60),
        kernel("step", 60, 900),
        kernel("nvjet_tst_128x256", 100, 300),
        kernel("flash_fwd_kernel", 300, 400),
        kernel("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 250, 450),
        Traced("step", 500, 1000),
        kernel("optimizer", 800, 900),
        kernel("elementwise_kernel", 800, 850),
        kernel("ncclDevKernel_AllGather_RING_LL", 860, 880),
        kernel("elementwise_kernel", 950, 1000),
    ]
    found = {kind: seconds * 2e6 for kind, seconds in seconds_by_kind(events, 2, on_gpu=True).items()}
    assert found == pytest.approx(
        {
            "GEMM": 200, "attention": 100, "communication": 50 + 20, "optimizer": 50, "other kernels": 50,
            "data wait": 50, "host gaps": 1000 - 520,
        }
    )  # fmt: skip


def test_what_lies_outside_the_steps_is_left_out() -> None:
    found = divide((10.0, 20.0), [("GEMM", [(0.0, 12.0)]), ("attention", [(11.0, 13.0), (19.0, 30.0)])])
    assert (found["GEMM"], found["attention"], found["host gaps"]) == (2.0, 2.0, 6.0)
    assert describe_breakdown({"GEMM": 0.03, "host gaps": 0.01}) == "GEMM 30.0 ms (75.0%), host gaps 10.0 ms (25.0%)"
