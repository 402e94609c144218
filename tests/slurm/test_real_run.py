"""The demo's own run on two nodes of a real cluster: tensor parallel inside a node, pipeline across nodes."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.reading import load_run
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.slurm.cluster import Cluster
from tests.small_training import SmallData, overrides, train_launch

SCRIPT = CHECKOUT / "train/tr0-stdlib-gpt/tr0a-4M-stdlib.slurm"
RUN = SCRIPT.stem
STEPS = 20
END_SECONDS = 240  # four processes share two cores, and each start imports for 10 s


def settings(small_data: SmallData) -> list[str]:
    """The run on the small dataset, narrower and shorter."""
    return overrides(
        parallel__pipeline=2, training__steps=STEPS, training__global_batch_size=4, training__micro_batch_size=2,
        model__hidden_size=64, model__ffn_size=128, model__vocab_size=512, schedule__warmup=2,
        data__path=small_data.folder / "text", data__tokenizer=small_data.folder / "tokenizer",
        data__split="80,20", data__max_epochs=5, data__sequence_length=32, checkpoint__every_steps=12,
        evaluation__every_steps=10, evaluation__samples=8, logging__every_steps=5,
    )  # fmt: skip


def submit(cluster: Cluster, small_data: SmallData, runs: Path, *words: str) -> int:
    """Submit the run; the same call again is the same submission."""
    return cluster.sbatch(
        SCRIPT,
        *settings(small_data),
        *words,
        cwd=CHECKOUT,
        env={"TRAINYARD_RUNS": str(runs)},
        options=("--nodes=2", f"--output={runs}-%j.log"),
    )


def losses(runs: Path) -> dict[int, float]:
    """Loss of each step, and of each validation under its negative step."""
    events = read_events(RunFolder(runs / RUN).events)
    found = {event.facts["step"]: event.facts["loss"] for event in effective(events, "step")}
    return found | {-event.facts["step"]: event.facts["loss"] for event in effective(events, "validation")}


def train_without_a_cluster(small_data: SmallData, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uninterrupted run, by ranks that need not import what they run."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    launch = start_launch(load_run(SCRIPT.with_suffix(".yaml"), settings(small_data)))
    run_on_ranks(train_launch, 4, str(launch.directory))


@pytest.mark.slurm
def test_a_cancelled_and_resubmitted_job_ends_like_an_uninterrupted_run(
    cluster: Cluster, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "cancelled"
    first = submit(cluster, small_data, runs)
    cluster.wait_for_log(first, " 5/20 loss ", timeout=END_SECONDS)
    cluster.cancel(first)
    state, _ = cluster.wait(first, timeout=END_SECONDS)
    assert state == "CANCELLED", cluster.log(first)
    assert "stopped at step" in cluster.log(first), cluster.log(first)

    second = submit(cluster, small_data, runs)
    train_without_a_cluster(small_data, tmp_path / "whole", monkeypatch)
    assert cluster.wait(second, timeout=END_SECONDS) == ("COMPLETED", 0), cluster.log(second)
    assert "resuming from step-" in cluster.log(second)

    one_a_node = overrides(parallel__tensor=1, parallel__processes_per_node=1)
    validation = submit(cluster, small_data, runs, *one_a_node, "--eval-only")
    assert cluster.wait(validation, timeout=END_SECONDS) == ("COMPLETED", 0), cluster.log(validation)

    run, expected = RunFolder(runs / RUN), losses(tmp_path / "whole")
    (evaluated,) = list_evaluations(run, [])
    found = evaluated.results["validation"].metrics["loss"].value
    assert (evaluated.step, found) == (STEPS, pytest.approx(expected[-STEPS], rel=1e-6))
    assert losses(runs) == expected
    assert expected.keys() == {*range(1, STEPS + 1), -10, -20}
    assert expected[1] - expected[STEPS] > 1
    assert sorted(path.name for path in run.launches.iterdir()) == ["0001", "0002"]
    layout = next(event for event in read_events(run.events) if event.kind == "start")
    assert layout.facts["layout"] == {"tensor": 2, "pipeline": 2, "data": 1, "sequence_parallel": False}
