"""`tools/tflops estimate`, `tune` and `draw` from the command line, where nothing is measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.report.record import append, measured
from tests.megatron_patches.benchmark.test_benchmark import FOUND
from tools.commands.tflops.command_line import app
from tools.commands.tflops.speeds import machines_of, measured_layouts


def tflops(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def test_an_estimate_for_programs() -> None:
    done = tflops("estimate", "tr11-176B-ml", "--nodes", "48", "--gpus-per-node", "8", "--gpu", "a100-80gb", "--json")
    found = json.loads(done.stdout)
    assert found["parameters"]["total"] == 176_247_271_424
    assert found["layout"]["data"] == 8
    assert len(found["memory"]["stages"]) == 12
    assert found["duration"]["days"] > 0


def test_overrides_count() -> None:
    done = tflops("estimate", "tr20a-125M-baseline", "--gpus-per-node", "8", "--parallel.zero_stage", "3")
    assert "ZeRO 3" in done.stdout
    assert "fits             n/a" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["estimate", "tr20a-125M-baseline", "--gpu", "RTX"], "no figures for a GPU RTX"),
        (["estimate", "tr11-176B-ml", "--nodes", "6", "--gpus-per-node", "7"], "nearest number of processes: 48"),
        (
            ["estimate", "tr11-176B-ml", "--nodes", "6", "--gpus-per-node", "8", "--gpu", "H100", "--require-fit"],
            "fits",
        ),
        # of a GPU whose speed in bf16 is not known the memory is, and of no GPU nothing
        (["estimate", "tr11-176B-ml", "--gpu", "V100-32GB", "--require-fit"], "no layout on 48 GPUs fits"),
        (["estimate", "tr11-176B-ml", "--require-fit"], "name the GPU with --gpu"),
        (["tune", "tr20a-125M-baseline", "--gpu", "V100-32GB"], "no units for bf16"),
        (["draw", "--record", "/dev/null"], "nothing is measured"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    done = tflops(*arguments)
    assert isinstance(done.exception, TrainyardError)
    assert said in str(done.exception)


def test_tuning_explains_and_writes_a_job_array(tmp_path: Path) -> None:
    script = tmp_path / "tune.slurm"
    done = tflops("tune", "tr20a-125M-baseline", "--gpu", "H200", "--show", "3", "--slurm", str(script))
    assert " 1. TP 1, PP 1, ZeRO" in done.stdout
    assert "parallel:\n  tensor: 1\n" in done.stdout
    assert "--array=0-2" in script.read_text()


def test_a_measured_step_teaches_speeds_and_is_drawn(tmp_path: Path) -> None:
    from megatron_patches.run.reading import load_run
    from tools.run_files.catalogue import find_run

    config = load_run(find_run("tr20a-125M-baseline", CHECKOUT))
    breakdown = {"GEMM": 0.5, "host gaps": 0.1}
    found = replace(FOUND, run=config.name, hardware="1 x NVIDIA H200", breakdown=breakdown)
    row = measured("h200", "a", ["tools/tflops", "bench"], found)
    machines = machines_of(config, 1, 1, "H200")
    (learned,) = measured_layouts([row], machines)
    assert learned.seconds == FOUND.step_seconds.median
    assert measured_layouts([row], machines_of(config, 1, 1, "H100")) == [], "other hardware teaches nothing"
    append(tmp_path / "a.jsonl", row)
    done = tflops("draw", "--record", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "pictures"))
    assert done.exception is None
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["tr20a-125M-baseline-roofline.svg", "tr20a-125M-baseline-time.svg"]
