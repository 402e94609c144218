"""The hash of what was delivered, through whole launches: other layouts, a kill, a rollback, an older checkpoint."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from data_tools.samples.delivered import FACT
from megatron_patches.artefacts.manifest import build_manifest, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from tests.command_line import verb
from tests.megatron_patches.checkpoint.test_resume import launch, train_and_signal, train_to_end
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides
from tools.commands.dataset import command_line as dataset
from tools.commands.runs.rollback import perform, plan_rollback
from tools.run_views.recorded_steps import recorded_launches

DP2_TP2_PP2 = overrides(parallel__tensor=2, parallel__pipeline=2, parallel__zero_stage=0)


def proof(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: RunFolder) -> tuple[int, Any]:
    done = verb(dataset, monkeypatch, capsys)("proof", run.path, "--json")
    return done.returncode, json.loads(done.stdout)


def test_every_layout_delivers_the_same(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed on one rank, resumed on eight, taken back, and resumed on two: every launch is compared with the files."""
    alone = small_data.run(tmp_path, overrides(parallel__zero_stage=0, checkpoint__asynchronous="false"))
    killed = launch(alone, tmp_path / "runs", monkeypatch)
    with pytest.raises(RankFailed):
        run_on_ranks(train_and_signal, 1, str(killed.directory), 5, signal.SIGKILL, 0)
    wide = small_data.run(tmp_path, [*DP2_TP2_PP2, *overrides(training__micro_batch_size=4)])
    run = train_to_end(wide, 8, tmp_path / "runs", monkeypatch)
    code, found = proof(monkeypatch, capsys, run)
    assert (code, found["equal"]) == (0, True)
    assert [(each["launch"], each["first_step"], each["last_step"]) for each in found["launches"]] == [
        ("0001", 1, 4), ("0002", 4, 8)
    ]  # fmt: skip
    assert [(each["samples"], each["equal"]) for each in found["checkpoints"]] == [(24, True), (48, True), (64, True)]
    first, second = (each.at(4) for each in recorded_launches(run))
    assert first is not None and second is not None and first.hash == second.hash is not None

    # a checkpoint from before there was a running hash: none is invented after it
    perform(plan_rollback(run, "6", [], []), "to read it once more")
    folder = run.checkpoints / "step-0000000006"
    old = read_manifest(folder / "manifest.json")
    facts = {name: value for name, value in old.facts.items() if name != FACT}
    write_manifest(folder / "manifest.json", build_manifest(old.kind, old.files, facts, old.parents, "by a test"))
    train_to_end(small_data.run(tmp_path, overrides(training__micro_batch_size=1)), 2, tmp_path / "runs", monkeypatch)
    assert FACT not in read_manifest(run.checkpoints / "step-0000000008" / "manifest.json").facts
    code, found = proof(monkeypatch, capsys, run)
    assert (code, found["launches"][2]["launch"], found["launches"][2]["compared"]) == (0, "0004", 2)
    assert [each["equal"] for each in found["checkpoints"]] == [True, None, None]
