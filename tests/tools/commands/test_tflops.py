"""`tools/tflops bench` from the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT
from tests.command_line import verb
from tests.small_training import SmallData
from tools.commands.tflops import command_line as tflops


def bench(*arguments: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "TMPDIR": str(temporary)}
    command = [CHECKOUT / "tools" / "tflops", "bench", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def yaml_of(data: SmallData, folder: Path) -> str:
    config = data.run(folder)
    return str(folder / config.family / f"{config.name}.yaml")


def test_both_sides_train_the_same(small_data: SmallData, tmp_path: Path) -> None:
    # accumulation, dropout, decay, a clip far below the norm: whatever the bare loop left out would show in its loss
    length = ["--peer", "loop", "--alternations", "3", "--warmup", "1", "--steps", "2", "--threads", "1"]
    changes = ["--parallel.zero_stage", "0", "--model.hidden_dropout", "0.1", "--model.attention_dropout=0.1"]
    done = bench(yaml_of(small_data, tmp_path), *length, "--json", *changes, temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agrees"]
    assert found["peer"]["loss_difference"] < 1e-5
    assert found["final_loss"] < 5.9  # it started at ln 384 = 5.95
    assert found["turns"] == {"alternations": 3, "warmup": 1, "steps": 2}
    ratio = found["peer"]["ratio"]
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    assert (found["threads"], found["layout"]["zero_stage"], found["mfu"]) == (1, 0, None)
    assert not list(tmp_path.glob("trainyard-benchmark-*")), "the temporary run directory was left behind"


@pytest.mark.parametrize(("ranks", "settings"), [(1, ["--parallel.zero_stage=0"]), (2, ["--parallel.tensor=2"])])
def test_a_profile_says_where_the_time_goes(
    ranks: int, settings: list[str], small_data: SmallData, tmp_path: Path
) -> None:
    trace, record = tmp_path / "traces" / "small.json", tmp_path / "record.jsonl"
    length = ["--peer", "loop", "--alternations", "3", "--warmup", "2", "--threads", "2"]
    # a profile that the run asks for itself is left out: it would be in what is measured
    own = ["--profile.steps=1", "--profile.after_step=3"]
    done = bench(
        yaml_of(small_data, tmp_path), *length, "--profile", str(trace), "--record", str(record), *settings, *own,
        temporary=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = sorted(
        (each["ts"], each["dur"]) for each in json.loads(trace.read_text())["traceEvents"] if each.get("name") == "step"
    )
    assert len(steps) == 3
    found = json.loads(record.read_text())["found"]
    assert found["agrees"], "the profiled steps are not compared with the peer's last ones"
    assert found["final_loss"] == pytest.approx(found["peer"]["final_loss"], rel=1e-5)
    seconds = found["breakdown"]
    assert set(seconds) == {
        "GEMM", "attention", "communication", "optimizer", "other kernels", "data wait", "host gaps",
    }  # fmt: skip
    assert sum(seconds.values()) == pytest.approx(sum(duration for _, duration in steps) / 3e6, rel=0.01)
    assert all(seconds[kind] > 0 for kind in seconds if kind != "communication")
    assert seconds["communication"] > 0 or ranks == 1
    assert found["tflops"]["computed"] < found["roof"]["tflops"]
    assert found["roof"]["bytes_per_second"] > 1e8
    assert re.search(r"of a step +GEMM [\d.]+ ms \([\d.]+%\), attention", done.stdout)
    assert sorted(path.name for path in trace.parent.iterdir()) == ["small.json"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["tr900z-1M-nothing"], "there is no run tr900z-1M-nothing"),
        (["RUN", "--peer", "megatron"], "megatron"),
        (["RUN", "--alternation", "3"], "alternation"),
        (["RUN", "--parallel.tensor", "3"], "nearest parallel.tensor that works"),
        (["RUN", "--processes", "3"], "nearest global_batch_size"),
        (["RUN", "--row", "x", "--vary", "", "--vary", "--training.seed 2"], "these are 2 configurations"),
        (["--parallel.tensor", "2"], "name a run before its overrides"),
        (["RUN", "--training.precision", "fp16"], "bench compares in fp32 or bf16"),
        (["RUN", "--data.path", "nowhere/text"], "nowhere/text"),
        (["RUN", "--training.global_batch_size", "4096"], "data.max_epochs"),
    ],
)
def test_bad_input(
    small_data: SmallData, tmp_path: Path, settings: list[str], said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    settings = [yaml_of(small_data, tmp_path) if word == "RUN" else word for word in settings]
    done = verb(tflops, monkeypatch, capsys)("bench", *settings)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_step_that_fails_in_the_measuring_process_is_one_message(small_data: SmallData, tmp_path: Path) -> None:
    done = bench(yaml_of(small_data, tmp_path), "--model.init_std", "1e38", "--alternations", "1", temporary=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: step 1: loss is" in done.stderr
    assert "Traceback" not in done.stderr
