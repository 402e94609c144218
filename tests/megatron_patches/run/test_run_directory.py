"""Launches are numbered once, appear whole, and share the run's manifest."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.run import ownership
from megatron_patches.run import run_directory as module
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved, load_run
from megatron_patches.run.run_directory import Launch, run_directory, start_launch
from tests.small_run import write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_run(write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml"))


def everything_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_where_runs_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value, expected in (("", CHECKOUT / "runs"), ("elsewhere", CHECKOUT / "elsewhere"), (str(tmp_path), tmp_path)):
        monkeypatch.setenv("TRAINYARD_RUNS", value)
        assert runs_root() == expected
    monkeypatch.delenv("TRAINYARD_RUNS")
    assert runs_root() == CHECKOUT / "runs"


def test_the_first_launch_makes_the_directory(runs: Path, config: RunConfig) -> None:
    launch = start_launch(config)
    assert launch.id == "0001"
    assert launch.run == run_directory(config)
    assert launch == Launch(runs / config.name / "launches" / "0001")
    assert load_resolved(launch.config) == config == load_resolved(launch.run.config)
    assert everything_under(runs / config.name) == [
        "config.yaml",
        "launches",
        "launches/0001",
        "launches/0001/config.yaml",
        "launches/0001/ended.json",
        "launches/0001/owner.json",
        "manifest.json",
    ]


def test_the_next_launch_keeps_the_manifest_and_replaces_the_configuration(runs: Path, config: RunConfig) -> None:
    first = start_launch(config)
    manifest = read_manifest(first.run.manifest)
    changed = config.model_copy(update={"why": "changed"})
    second = start_launch(changed)
    assert second.id == "0002"
    assert load_resolved(first.config) == config
    assert load_resolved(second.run.config) == changed
    assert read_manifest(second.run.manifest) == manifest
    assert manifest.kind == "run"
    assert manifest.facts["run"] == config.name
    assert len(str(manifest.facts["wandb_id"])) == 8


def test_numbers_go_on_after_a_gap(runs: Path, config: RunConfig) -> None:
    (runs / config.name / "launches" / "0041").mkdir(parents=True)
    (runs / config.name / "launches" / "0041" / "config.yaml").touch()
    assert start_launch(config).id == "0042"


def test_launches_at_once(runs: Path, config: RunConfig) -> None:
    with ThreadPoolExecutor(8) as pool:
        launches = list(pool.map(start_launch, [config] * 16))
    assert sorted(launch.id for launch in launches) == [f"{number:04d}" for number in range(1, 17)]
    assert all(load_resolved(launch.config) == config for launch in launches)
    assert everything_under(runs / config.name / "launches") == sorted(
        name
        for launch in launches
        for name in (launch.id, *(f"{launch.id}/{file}" for file in ("config.yaml", "ended.json", "owner.json")))
    )
    assert not list((runs / config.name).glob("*.partial"))


def test_another_launch_takes_the_number_first(runs: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race that threads rarely hit: the folder appears after the number was chosen."""
    rename = Path.rename

    def late(folder: Path, target: Path) -> Path:
        if target.name == "0001":
            target.mkdir()
            (target / "config.yaml").touch()
        return rename(folder, target)

    monkeypatch.setattr(Path, "rename", late)
    assert start_launch(config).id == "0002"
    assert (runs / config.name / "launches" / "0001" / "config.yaml").read_text() == ""


def test_another_launch_writes_the_manifest_first(
    runs: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = start_launch(config).run.manifest.read_bytes()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    module._create_manifest(run_directory(config), config)
    assert run_directory(config).manifest.read_bytes() == theirs


def test_a_folder_that_cannot_be_written(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "file"))
    with pytest.raises(TrainyardError, match=r"cannot be written to .* export TRAINYARD_RUNS=FOLDER"):
        start_launch(config)


def test_a_launch_that_fails_leaves_no_folder(runs: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(ownership, "write_atomically", full)
    with pytest.raises(TrainyardError, match="No space left"):
        start_launch(config)
    assert everything_under(runs / config.name / "launches") == []
