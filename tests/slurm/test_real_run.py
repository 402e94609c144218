"""The demo's own run on two nodes of a real cluster: tensor parallel inside a node, pipeline across nodes."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.events.reading import effective, read_events
from tests.slurm.cluster import Cluster
from tests.small_training import SmallData, overrides

SCRIPT = CHECKOUT / "train/tr0-stdlib-gpt/tr0a-4M-stdlib.slurm"
STEPS = 40
END_SECONDS = 240  # four processes share two cores, and each start imports for 10 s


def submit(cluster: Cluster, small_data: SmallData, runs: Path, *words: str) -> int:
    """Submit the run on the small dataset; the same call again is the same submission."""
    arguments = overrides(
        parallel__pipeline=2, training__steps=STEPS, training__global_batch_size=4, training__micro_batch_size=2,
        data__path=small_data.folder / "text", data__tokenizer=small_data.folder / "tokenizer",
        data__split="80,20", data__max_epochs=5, data__sequence_length=32, checkpoint__every_steps=25,
        evaluation__every_steps=20, evaluation__samples=8,
    )  # fmt: skip
    return cluster.sbatch(
        SCRIPT,
        *words,
        *arguments,
        cwd=CHECKOUT,
        env={"TRAINYARD_RUNS": str(runs)},
        options=("--nodes=2", f"--output={runs}-%j.log"),
    )


def losses(runs: Path) -> dict[int, float]:
    """Loss of each step, and of each validation under its negative step."""
    events = read_events(RunFolder(runs / "tr0a-4M-stdlib").events)
    found = {event.facts["step"]: event.facts["loss"] for event in effective(events, "step")}
    return found | {-event.facts["step"]: event.facts["loss"] for event in effective(events, "validation")}


@pytest.mark.slurm
def test_a_cancelled_and_resubmitted_job_ends_like_an_uninterrupted_one(
    cluster: Cluster, small_data: SmallData, tmp_path: Path
) -> None:
    whole = submit(cluster, small_data, tmp_path / "whole")
    assert cluster.wait(whole, timeout=END_SECONDS) == ("COMPLETED", 0), cluster.log(whole)

    first = submit(cluster, small_data, tmp_path / "cancelled")
    cluster.wait_for_log(first, " 10/40 loss ", timeout=END_SECONDS)
    cluster.cancel(first)
    state, _ = cluster.wait(first, timeout=END_SECONDS)
    assert state == "CANCELLED", cluster.log(first)
    assert "stopped at step" in cluster.log(first), cluster.log(first)

    second = submit(cluster, small_data, tmp_path / "cancelled")
    assert cluster.wait(second, timeout=END_SECONDS) == ("COMPLETED", 0), cluster.log(second)
    assert "resuming from step-" in cluster.log(second)

    validation = submit(cluster, small_data, tmp_path / "whole", "--eval-only")
    assert cluster.wait(validation, timeout=END_SECONDS) == ("COMPLETED", 0), cluster.log(validation)

    expected = losses(tmp_path / "whole")
    (evaluated,) = list_evaluations(RunFolder(tmp_path / "whole/tr0a-4M-stdlib"), [])
    found = evaluated.results["validation"].metrics["loss"].value
    assert (evaluated.step, found) == (STEPS, pytest.approx(expected[-STEPS], rel=1e-6))
    assert losses(tmp_path / "cancelled") == expected
    assert expected.keys() == {*range(1, STEPS + 1), -20, -40}
    assert expected[1] - expected[STEPS] > 1
    assert sorted(path.name for path in (tmp_path / "cancelled/tr0a-4M-stdlib/launches").iterdir()) == ["0001", "0002"]
    layout = next(event for event in read_events(tmp_path / "whole/tr0a-4M-stdlib/events") if event.kind == "start")
    assert layout.facts["layout"] == {"tensor": 2, "pipeline": 2, "data": 1, "sequence_parallel": False}
