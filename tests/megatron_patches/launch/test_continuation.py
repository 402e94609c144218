"""What a launch says before its first step: what it takes and why, what else lies there, the rate, what is left."""

from pathlib import Path

import pytest

from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.facts import LaunchFacts, LaunchTarget
from megatron_patches.launch.plan import main, plan_run, summary
from megatron_patches.run.reading import read_run, to_yaml
from tests.small_artefacts import RUN, make_artefact
from tests.small_training import SmallData, overrides

HERE = LaunchTarget(nodes=None, gpu=False)
CONSTANT = ["--schedule={name: constant, warmup: 2}"]
EXTENDED = [*CONSTANT, "--training.extend_to=24"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def run(small_data: SmallData, tmp_path: Path, runs: Path) -> Path:
    return small_data.write(tmp_path / "tr900-tests", RUN)


def save(run: Path, runs: Path, step: int, settings: list[str]) -> Path:
    facts = LaunchFacts(read_run(run, settings), HERE)
    identity = run_identity(
        facts.config, facts.data.identity_for(facts.config.objective.token_roles), facts.data.tokenizer_id
    )
    rates = {"learning_rate": facts.config.learning_rate(step), "next_learning_rate": 0.0}
    folder = runs / RUN / "checkpoints" / f"step-{step:010d}"
    files = {"weights-00000.safetensors": b"weights", "config.yaml": to_yaml(facts.config).encode()}
    known = {"run": RUN, "launch": "0001", "step": step, "samples": 8 * step, "tokens": 128 * step}
    make_artefact(folder, "checkpoint", files, {**known, **rates, "identity": identity})
    return folder


def said(run: Path, settings: list[str]) -> dict[str, list[str]]:
    """Texts by label; the course beneath them under an empty one."""
    found: dict[str, list[str]] = {}
    head, _, course = summary(plan_run(run, settings, HERE)).partition("\n\n")
    for line in head.splitlines():
        found.setdefault(line[:16].strip(), []).append(line[17:])
    return {**found, "": course.splitlines()}


def test_a_run_that_begins(run: Path) -> None:
    found = said(run, EXTENDED)
    assert found["begins"] == ["at step 0: the run has no checkpoint to resume from"]
    assert not {"resumes from", "boundary", "remaining"} & found.keys()
    assert found[""][0] == "step  learning rate" and "   2  0.01           warm-up ends" in found[""]
    assert "   8  0.01           an extension begins (E)" in found[""] and "  24  0.001" in found[""]
    assert all(line.isascii() and len(line) <= 80 for line in found[""])
    assert found[""][-1].split() == ["step", "1", "24"] and found[""][-2].strip() == "E"


def test_a_run_that_is_extended(run: Path, runs: Path) -> None:
    for step in (3, 8):
        save(run, runs, step, CONSTANT)
    found = said(run, EXTENDED)
    taken = "step-0000000008, the newest whole checkpoint, saved by launch 0001, step 8 of 24; 1 older one beside it"
    assert found["resumes from"] == [taken] and "not taken" not in found
    assert found["settings"] == ["changed since step-0000000008: training.extend_to [] -> [24]"]
    (boundary,) = found["boundary"]
    assert boundary == "learning rate 0.01 in step 8, 0.00991353 in step 9, 0.001 in the last one, 24"
    (remaining,) = found["remaining"]
    assert remaining.startswith("16 steps, 128 samples, ") and remaining.endswith(" epochs")
    assert "   8  0.01           an extension begins (E), resumes here (R)" in found[""]
    assert "   9  0.00991353" in found[""] and found[""][-2].strip() == "ER"


def test_what_else_lies_there_is_told(run: Path, runs: Path) -> None:
    save(run, runs, 3, CONSTANT)
    broken = save(run, runs, 6, CONSTANT)
    (broken / "weights-00000.safetensors").unlink()
    found = said(run, CONSTANT)
    assert found["resumes from"][0].startswith("step-0000000003, the newest that can be resumed from")
    (other,) = found["not taken"]
    assert other.startswith("checkpoints/step-0000000006 (") and "weights-00000" in other
    assert found["remaining"][0].startswith("5 steps, 40 samples")


def test_a_last_step_that_is_broken_is_no_end(run: Path, runs: Path) -> None:
    save(run, runs, 3, CONSTANT)
    folder = save(run, runs, 8, CONSTANT)
    with pytest.raises(TrainyardError, match="the run has ended"):
        plan_run(run, CONSTANT, HERE)
    (folder / "weights-00000.safetensors").unlink()
    assert said(run, CONSTANT)["remaining"][0].startswith("5 steps")


def test_a_jump_that_is_named_is_shown(run: Path, runs: Path) -> None:
    save(run, runs, 6, CONSTANT)
    named = [*CONSTANT, *overrides(optimizer__learning_rate=2e-2, checkpoint__allow_rate_jump_at=6)]
    assert said(run, named)["boundary"] == [
        "learning rate 0.01 in step 6, 0.02 in step 7 (a jump that checkpoint.allow_rate_jump_at names: 0.02 at step 6 "
        "now), 0.02 in the last one, 8"
    ]


def test_a_run_that_has_ended_is_refused(run: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run, runs, 8, CONSTANT)
    assert main([str(run), *CONSTANT, "--local"]) == 2
    told = capsys.readouterr().err
    assert "nothing is left to train on. To extend it, add --training.extend_to N, N above 8 steps" in told
    assert not (runs / RUN / "launches").exists()
    assert main([str(run), *EXTENDED, "--local"]) == 0
