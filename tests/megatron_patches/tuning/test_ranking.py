"""The ranking of a run's layouts, its reasons, and what becomes of the first."""

import os
import subprocess
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.step_time import data_sheet_speeds
from megatron_patches.hardware.machines import hardware_named
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.tuning.candidates import Candidate
from megatron_patches.tuning.ranking import apart, explain, rank
from megatron_patches.tuning.run_file import write_layout
from megatron_patches.tuning.slurm_array import array_script

TRAIN = Path(__file__).parents[3] / "train"
H200 = hardware_named("H200")
SPEEDS = data_sheet_speeds(H200, "bf16")
assert SPEEDS is not None


@pytest.fixture(scope="module")
def gpt2() -> RunConfig:
    return load_run(TRAIN / "tr20-125M-domain-tokens" / "tr20a-125M-baseline.yaml")


def test_a_small_model_wants_data_parallelism_alone(gpt2: RunConfig) -> None:
    found = rank(gpt2, 8, 8, H200.usable_memory, SPEEDS)
    first = found[0].candidate
    assert (first.tensor, first.pipeline, first.recomputation) == (1, 1, "none")
    assert [each.seconds for each in found] == sorted(each.seconds for each in found)
    worst = explain(found[0], found[-1], SPEEDS)
    assert worst.startswith("+")
    assert "%" in worst


def test_less_memory_leaves_fewer_layouts(gpt2: RunConfig) -> None:
    everything, little = (len(rank(gpt2, 8, 8, memory, SPEEDS)) for memory in (None, 4 * 10**9))
    assert 0 < little < everything
    with pytest.raises(TrainyardError, match="fits in 1 MB; the one that needs least, TP"):
        rank(gpt2, 8, 8, 10**6, SPEEDS)


def test_layouts_to_learn_from_are_from_all_over_the_ranking(gpt2: RunConfig) -> None:
    found = rank(gpt2, 8, 8, None, SPEEDS)
    chosen = apart(found, 5)
    assert (chosen[0], chosen[-1], len(chosen)) == (found[0], found[-1], 5)
    assert apart(found, 0) == []
    assert apart(found[:1], 5) == found[:1]


def test_a_layout_is_written_into_the_runs_file(tmp_path: Path) -> None:
    path = tmp_path / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml"
    path.parent.mkdir()
    before = (TRAIN / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml").read_text()
    path.write_text(before)
    wanted = Candidate(1, 2, False, 1, 4, "full")
    write_layout(path, wanted)
    assert Candidate.of(load_run(path)) == wanted
    text = path.read_text()
    assert "# at so few tokens" in text
    assert "processes_per_node: 2" in text
    assert list(path.parent.iterdir()) == [path]


def test_the_job_array_is_a_script_that_bash_reads(gpt2: RunConfig, tmp_path: Path) -> None:
    best = rank(gpt2, 16, 8, None, SPEEDS)[:3]
    script = tmp_path / "tune.slurm"
    script.write_text(array_script(gpt2, gpt2.name, ["--training.seed", "1"], best, 2, 8, Path("r.jsonl")))
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "--array=0-2 --output=logs/%x-%A_%a.log" in script.read_text()
    outside = subprocess.run(["bash", str(script)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert outside.returncode and "SLURM_ARRAY_TASK_ID: is set in a job of an array" in outside.stderr
    assert f"--parallel.zero_stage={best[0].candidate.zero_stage}" in script.read_text()
