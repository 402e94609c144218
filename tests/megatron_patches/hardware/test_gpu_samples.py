"""GPUs as the driver tells of them, by a stand-in for nvidia-smi."""

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_patches.callbacks.event_recorder import EventRecorder
from megatron_patches.events.reading import read_events
from megatron_patches.events.writing import EventWriter
from megatron_patches.hardware import gpu_samples
from megatron_patches.hardware.gpu_samples import GpuSampler, read_samples, visible_gpus
from tests.megatron_patches.callbacks.test_callbacks import RECORD

SAID = """GPU-aaaa, 0, 97, 81000, 143771, 655.20, 61
GPU-bbbb, 1, 3, 512, 143771, [N/A], 33
a greeting of the site
"""


def stand_in(folder: Path, text: str, ending: str = "") -> list[str]:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/bash\ncat <<'END'\n{text}END\n{ending}\n")
    program.chmod(0o755)
    return [str(program)]


@pytest.mark.slow
def test_each_visible_gpu_is_one_sample_and_what_is_not_told_is_left_out(tmp_path: Path) -> None:
    command = stand_in(tmp_path, SAID)
    first, second = read_samples(None, command)
    assert first == {
        "index": 0, "utilisation": 97, "memory_mib": 81000, "memory_total_mib": 143771, "watts": 655.2, "celsius": 61
    }  # fmt: skip
    assert "watts" not in second and second["memory_mib"] == 512
    assert read_samples(["1"], command) == [second] == read_samples(["GPU-bbbb"], command)
    assert read_samples([], command) == []


@pytest.mark.slow
def test_a_driver_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="ended with code 9: no devices"):
        read_samples(None, stand_in(tmp_path, "no devices\n", "exit 9"))
    with pytest.raises(OSError, match="none"):
        read_samples(None, [str(tmp_path / "none")])
    monkeypatch.setattr(gpu_samples, "LONGEST_ANSWER", 0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        read_samples(None, stand_in(tmp_path, "", "exec sleep 30"))


def test_the_gpus_that_the_job_may_see() -> None:
    assert visible_gpus({}) is None
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, GPU-bb"}) == ["2", "GPU-bb"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """What a recorder writes while a sampler gets these answers."""
    heard = iter(answers)

    def read() -> list[dict[str, float]]:
        answer = next(heard, OSError("no more"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sampler(tell: Any, complain: Any) -> GpuSampler:
        return GpuSampler(tell, complain, read, every=0.001)

    monkeypatch.setattr("megatron_patches.callbacks.event_recorder.GpuSampler", sampler)
    recorder = EventRecorder(EventWriter(folder, "0001", "trainer"), sample_gpus=True)
    assert recorder._sampler is not None
    recorder._sampler.start()
    deadline = time.monotonic() + 10
    while recorder._samples.qsize() < len(answers) and time.monotonic() < deadline:
        time.sleep(0.001)
    trainer: Any = SimpleNamespace(emit=lambda message: recorder.on_record(trainer, message))
    recorder.on_record(trainer, RECORD)
    recorder.close()
    return [(event.kind, event.facts) for event in read_events(folder)]


def test_samples_come_into_the_events_with_the_step_at_which_they_were_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = {"index": 0.0, "utilisation": 97.0}
    (kind, facts), *_, (last, _) = recorded(tmp_path, monkeypatch, [[sample]])
    assert (kind, facts["step"], facts["gpus"], last) == ("gpus", 5, [sample], "step") and facts["host"]


def test_a_driver_that_fails_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kind, facts), (last, _) = recorded(tmp_path, monkeypatch, [OSError("no nvidia-smi")])
    assert (kind, last) == ("message", "step")
    assert facts["text"] == "GPUs are not sampled any more in this launch: no nvidia-smi"


def test_a_driver_that_lists_none_of_the_visible_gpus_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kind, facts), _ = recorded(tmp_path, monkeypatch, [[]])
    assert kind == "message" and facts["text"].endswith("nvidia-smi lists none that the run may see")
