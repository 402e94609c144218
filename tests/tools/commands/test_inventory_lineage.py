"""`tools/inventory show` draws a run's lineage."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from megatron_patches.artefacts.branch import BEGAN, Beginning, record_beginning
from megatron_patches.artefacts.descent import descent_of_launch, origin_of
from megatron_patches.artefacts.manifest import Manifest, build_manifest, write_manifest
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tools.commands.inventory import command_line as inventory

CHILD = "tr901a-28K-restarted"


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, data and cache of this test alone."""
    for name in ("RUNS", "DATA", "CACHE"):
        monkeypatch.setenv(f"TRAINYARD_{name}", str(tmp_path / name.lower()))
    return tmp_path / "runs"


def say(*arguments: str) -> str:
    done = CliRunner().invoke(inventory.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def drawn(what: str) -> list[str]:
    """The picture, without what stands above it."""
    lines = say("show", what).splitlines()
    return lines[[line.startswith("lineage of the run") for line in lines].index(True) + 1 :]


def begin(runs: Path, run: str, launch: int, step: int, source: Manifest | None = None, rollback: bool = False) -> None:
    folder = runs / run / "launches" / f"{launch:04d}"
    folder.mkdir(parents=True)
    record_beginning(folder, Beginning(launch, step, source.id if source else None, rollback))


def launched(
    runs: Path, launch: int, source: Manifest | None, steps: range, run: str = RUN, at: int | None = None
) -> list[Manifest]:
    """A launch with its saves."""
    manifest = build_manifest("run", [], {"run": run, "wandb_id": "0"})
    if not (runs / run / "manifest.json").exists():
        (runs / run).mkdir(parents=True)
        write_manifest(runs / run / "manifest.json", manifest)
    began = int(str(source.facts["step"])) if source and at is None else at or 0
    begin(runs, run, launch, began, source)
    descent = descent_of_launch(manifest.id, launch, began, source)
    saved: list[Manifest] = []
    before = source
    for step in steps:
        parents = (before.id,) if before else ()
        before = make_checkpoint(runs, step, run, parents, launch=f"{launch:04d}", **descent)
        saved.append(before)
    return saved


def test_a_course_with_everything(runs: Path) -> None:
    first = launched(runs, 1, None, range(10, 41, 10))
    second = launched(runs, 2, first[3], range(50, 61, 10))
    begin(runs, RUN, 3, 20, first[1], rollback=True)
    for step in (30, 40):
        folder = runs / RUN / "checkpoints" / f"step-{step:010d}"
        folder.rename(folder.with_name(f"{folder.name}.replaced-1"))
    fourth = launched(runs, 4, first[1], range(30, 41, 10))
    begin(runs, RUN, 5, 40, fourth[1])
    launched(runs, 1, second[0], range(5, 11, 5), CHILD, at=0)
    export = runs / RUN / "exports" / "hub"
    make_artefact(export, "export", {"a": b"1"}, {"origin": origin_of(first[0])}, (first[0].id,))
    say("invalidate", f"{RUN}@40/replaced-1", "--because", "a spike")

    why = "left behind: rollback 3 went back to step 20"
    assert drawn(RUN) == [
        "  * launch 1 from step 0: @10, @20",
        f"  |   {why}: @30, @40 INVALID",
        f"  |-> export {RUN}/hub from @10",
        "  - launch 2 from @40/replaced-1",
        f"  |   {why}: @50 INVALID, @60 INVALID",
        f"  |-> run {CHILD} from @50: 2 checkpoints",
        "  * rollback 3 to step 20",
        "  * launch 4 from @20: @30, @40",
        "  - launch 5: nothing that it saved is here",
    ]
    assert "  * launch 4 from @20: @30, [@40]" in drawn(f"{RUN}@40")
    said = say("find", "--run", RUN).splitlines()
    found = {line.split()[0]: " ".join(line.split()[3:5]) for line in said if line}
    assert found[f"{RUN}@60"] == "invalid, left" and found[f"{RUN}@20"].startswith("valid ")
    child = drawn(CHILD)
    assert child[0].startswith(f"  came from {RUN}@50 (")
    assert " ".join(child[1:]).split()[:7] == ["*", "launch", "1", "from", f"{RUN}@50", f"({second[0].id[:12]}):", "@5"]
    assert all(len(line) <= 80 for line in [*drawn(RUN), *child])


def test_a_long_run_is_abbreviated_and_what_is_gone_is_said(runs: Path) -> None:
    first = launched(runs, 1, None, range(10, 30, 10))
    second = launched(runs, 7, first[1], range(30, 1000, 10))
    for launch in range(2, 6):
        begin(runs, RUN, launch, 0)
    for step in (10, 20):
        (runs / RUN / "checkpoints" / f"step-{step:010d}" / "manifest.json").unlink()
    assert drawn(f"{RUN}@500") == [
        "  - launches 1 to 5: nothing that they saved is here",
        "  * launch 7 from step 20, which is deleted: @30, @40, @50, @60, ... 88 more",
        "  |   ..., [@500], @960, @970, @980, @990",
    ]
    shown = say("show", f"{RUN}@500")
    assert f"  {second[46].id[:12]} checkpoint {RUN}@490" in shown and f"45 more checkpoints of {RUN}\n" in shown


def test_a_run_of_an_earlier_version_and_a_damaged_record(runs: Path) -> None:
    for step in (10, 20):
        make_checkpoint(runs, step)
    assert drawn(RUN) == ["  * launch 1: @10, @20"]
    begin(runs, RUN, 2, 10)
    (runs / RUN / "launches" / "0002" / BEGAN).write_text("{")
    assert "launch 2 began: restore the file, or remove it" in say("show", RUN)
