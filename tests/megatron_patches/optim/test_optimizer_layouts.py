"""Promises 1 and 2 for Lion, Adafactor and Muon under DeepSpeed (test_layouts and test_resume: AdamW, SGD)."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.run.config import RunConfig
from tests.megatron_patches.checkpoint.test_resume import losses, train_to_end
from tests.ranks import run_on_ranks
from tests.small_engine import SmallEngine, record_steps, relative
from tests.small_training import SmallData, overrides

STEPS = 6
TABLE = "embedding.tokens.table.weight"
OPTIMIZERS = {
    "lion": "{name: lion, learning_rate: 1e-3, weight_decay: 0.1, gradient_clip: 0.05}",
    "adafactor": "{name: adafactor, learning_rate: 3e-2, weight_decay: 0.1, gradient_clip: 0.05}",
    "muon": "{name: muon, learning_rate: 2e-2, weight_decay: 0.1, gradient_clip: 0.05, rest: {learning_rate: 1e-2}}",
}
LAYOUTS = {
    "TP2 DP2 ZeRO-1": (4, overrides(parallel__tensor=2, parallel__zero_stage=1)),
    "PP2 DP2 ZeRO-1": (4, overrides(parallel__pipeline=2, parallel__zero_stage=1)),
    "DP2 ZeRO-3": (2, overrides(parallel__zero_stage=3)),
}
MOVES = {  # row and column moments of a tied table come from one of its stages, and arrive on every rank
    "PP2 DP2 ZeRO-1 to TP2": (*LAYOUTS["PP2 DP2 ZeRO-1"], 2, overrides(parallel__tensor=2, parallel__zero_stage=0)),
    # what the two ranks of ZeRO 3 hold of a matrix is cut anew, by rows and columns and by stretches
    "DP2 ZeRO-3 to TP2 DP2 ZeRO-1": (*LAYOUTS["DP2 ZeRO-3"], *LAYOUTS["TP2 DP2 ZeRO-1"]),
}


def settings(optimizer: str) -> list[str]:
    return [f"--optimizer={OPTIMIZERS[optimizer]}", "--schedule.final_learning_rate=1e-4"]


@pytest.fixture(scope="module")
def single_process(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def reference(optimizer: str) -> list[tuple[float, float]]:
        arguments = [*settings(optimizer), *overrides(training__micro_batch_size=8, parallel__zero_stage=0)]
        return run_on_ranks(record_steps, 1, small_data.run(folder, arguments), STEPS)[0]

    return reference


@pytest.mark.parametrize(
    ("optimizer", "layout"),
    [(optimizer, layout) for optimizer in ("adafactor", "muon") for layout in LAYOUTS] + [("lion", "PP2 DP2 ZeRO-1")],
)
def test_layout_does_not_change_the_result(
    layout: str, optimizer: str, single_process, small_data: SmallData, tmp_path: Path  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    ranks, arguments = LAYOUTS[layout]
    expected = single_process(optimizer)
    assert expected[0][0] - expected[-1][0] > 0.03, "nothing is learned"
    for found in run_on_ranks(record_steps, ranks, small_data.run(tmp_path, [*settings(optimizer), *arguments]), STEPS):
        assert relative(found, expected) < 1e-5


def embedding_after(config: RunConfig, steps: int) -> np.ndarray | None:
    """The token embedding of this rank's stage after so many steps; None of a stage without one."""
    small = SmallEngine(config)
    small.train(steps)
    small.batches.close()
    found = [piece.tensor for piece in small.engine.state() if (piece.name, piece.kind) == (TABLE, "weight")]
    return found[0].numpy() if found else None


def test_the_copies_of_a_tied_table_stay_equal(small_data: SmallData, tmp_path: Path) -> None:
    """To the bit, though ZeRO cuts the table within it, and elsewhere on each stage."""
    arguments = [*settings("adafactor"), *LAYOUTS["PP2 DP2 ZeRO-1"][1], "--model.layers=2"]
    copies = run_on_ranks(embedding_after, 4, small_data.run(tmp_path, arguments), 8)
    assert len(copies) == 4
    for copy in copies:
        assert np.array_equal(copy, copies[0])


@pytest.mark.parametrize(
    ("optimizer", "move"),
    [
        ("adafactor", "PP2 DP2 ZeRO-1 to TP2"),
        ("muon", "PP2 DP2 ZeRO-1 to TP2"),
        ("muon", "DP2 ZeRO-3 to TP2 DP2 ZeRO-1"),
        ("lion", "DP2 ZeRO-3 to TP2 DP2 ZeRO-1"),
    ],
)
def test_another_layout_continues(
    optimizer: str, move: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From step 3 of a run that goes on to its end, as if it had been killed behind it."""
    ranks, arguments, then_ranks, then_words = MOVES[move]
    arguments, then_words = ([*settings(optimizer), *each] for each in (arguments, then_words))
    whole = train_to_end(small_data.run(tmp_path, arguments), ranks, tmp_path / "whole", monkeypatch)
    shutil.copytree(tmp_path / "whole", tmp_path / "moved", symlinks=True)
    for folder in (tmp_path / "moved" / whole.path.name / "checkpoints").glob("step-*"):
        if folder.name != "step-0000000003":
            shutil.rmtree(folder)
    moved = train_to_end(small_data.run(tmp_path, then_words), then_ranks, tmp_path / "moved", monkeypatch)
    expected, found = losses(whole), losses(moved)
    assert max(abs(found[step] - expected[step]) / expected[step] for step in expected) < 1e-5
    assert (moved.checkpoints / "step-0000000008").exists(), "nothing was trained again"
