"""The catalogue says what manifests say, however it was made, deleted or renewed."""

import json
import multiprocessing
import os
import resource
import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.artefacts.inventory import renewal
from megatron_patches.artefacts.inventory.catalogue import catalogue_path, delete_catalogue, open_catalogue
from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder, read_copies
from megatron_patches.errors import TrainyardError
from tests.megatron_patches.artefacts.inventory.conftest import SmallInventory
from tests.small_artefacts import RUN, make_checkpoint


def test_everything_is_found(inventory: SmallInventory) -> None:
    found = {each.name: each for each in inventory.ask()}
    assert sorted(found) == ["text", "tokenizer", f"{RUN}@100", f"{RUN}@200", f"{RUN}@300"]
    checkpoint = found[f"{RUN}@200"]
    assert (checkpoint.id, checkpoint.tokens, checkpoint.layout) == (
        inventory.checkpoints[1].id, 128 * 200, "tp2 pp1 dp1 zero1",
    )  # fmt: skip
    assert checkpoint.metrics == {"validation_loss": 3.8}
    assert set(checkpoint.parents) == {inventory.dataset.id, inventory.tokenizer.id}
    assert checkpoint.size == sum(file.size for file in inventory.checkpoints[1].files)


def test_what_was_left_behind_whole_is_listed_under_the_name_that_a_later_save_gave_it(
    inventory: SmallInventory,
) -> None:
    for step in (100, 200):
        inventory.checkpoint(step).rename(inventory.checkpoint(step).with_name(f"step-{step:010d}.replaced-1"))
    (inventory.checkpoint(100).with_name("step-0000000100.replaced-1") / "weights-00000.safetensors").write_bytes(b"")
    again = make_checkpoint(inventory.runs, 200, launch="0002")
    names = {each.name for each in inventory.ask("kind = 'checkpoint'")}
    assert names == {f"{RUN}@200", f"{RUN}@200/replaced-1", f"{RUN}@300"}
    assert inventory.find(f"{RUN}@200").id == again.id
    assert inventory.find(f"{RUN}@200/replaced-1").id == inventory.checkpoints[1].id


@pytest.mark.parametrize("suffix", [".partial", ".deleted", ".0002.partial", ".0002.saving", ".deleting", ".pulling"])
def test_what_is_no_checkpoint_is_not_listed(inventory: SmallInventory, suffix: str) -> None:
    inventory.checkpoint(200).rename(inventory.checkpoint(200).with_name(inventory.checkpoint(200).name + suffix))
    assert [each.step for each in inventory.ask("kind = 'checkpoint'")] == [100, 300]


def test_a_renewal_reads_only_what_changed(inventory: SmallInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "_STILL_CHANGING_NANOSECONDS", 0)
    inventory.ask()
    make_checkpoint(inventory.runs, 400)
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        assert (catalogue.renewal.folders, catalogue.renewal.manifests) == (1, 1)
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        assert (catalogue.renewal.folders, catalogue.renewal.manifests) == (0, 0)
    shutil.rmtree(inventory.runs / RUN)
    assert inventory.ask("run = ?", RUN) == []


def test_a_change_within_the_clocks_tick_is_seen(inventory: SmallInventory) -> None:
    inventory.ask()
    shelf = inventory.checkpoint(100).parent
    before = shelf.stat()
    make_checkpoint(inventory.runs, 400)
    os.utime(shelf, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if the clock had not moved on
    assert len(inventory.ask("kind = 'checkpoint'")) == 4


def test_a_clock_that_runs_backwards(inventory: SmallInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "_STILL_CHANGING_NANOSECONDS", 0)
    inventory.ask()
    make_checkpoint(inventory.runs, 400)
    os.utime(inventory.checkpoint(100).parent, (1, 1))
    assert len(inventory.ask("kind = 'checkpoint'")) == 4
    folder = inventory.runs / RUN
    for number, word in enumerate(("deprecated", "restored", "deprecated")):
        annotate(folder, Annotation(word, "spikes", date=f"20{30 - number}-01-01T00:00:00+00:00"))  # type: ignore[arg-type]
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        assert catalogue.rows("SELECT kind FROM annotations WHERE run = ?", [RUN]) == [("deprecated",)]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise", "other version"])
def test_any_reader_may_lose_it(inventory: SmallInventory, damage: str) -> None:
    expected = inventory.ask()
    path = catalogue_path(inventory.runs, inventory.data)
    if damage == "gone":
        path.unlink()
    elif damage == "other version":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
    else:
        content = {"empty": b"", "cut": path.read_bytes()[:5000], "noise": b"x" * 9000}[damage]
        path.write_bytes(content)
    assert inventory.ask() == expected


def test_a_damaged_manifest_is_a_problem_and_no_artefact(inventory: SmallInventory) -> None:
    manifest = inventory.checkpoint(200) / "manifest.json"
    manifest.write_text("{")
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        assert [each.step for each in catalogue.artefacts("kind = 'checkpoint'")] == [100, 300]
        assert [str(manifest) in problem for problem in catalogue.problems()] == [True]
    manifest.write_text(json.dumps(inventory.checkpoints[1].model_dump()))
    with open_catalogue(inventory.runs, inventory.data, thorough=True) as catalogue:
        assert catalogue.problems() == []
        assert len(catalogue.artefacts("kind = 'checkpoint'")) == 3


def test_a_cache_that_cannot_be_written_says_so(
    inventory: SmallInventory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "file"))
    with pytest.raises(TrainyardError, match="TRAINYARD_CACHE"):
        inventory.ask()


def keep_asking(inventory: SmallInventory, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        delete_catalogue(inventory.runs, inventory.data)
        assert len(inventory.ask("kind = 'checkpoint'")) >= 3


def test_several_processes_that_delete_and_renew_it(inventory: SmallInventory) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=keep_asking, args=(inventory, 1.0)) for _ in range(3)]
    for process in processes:
        process.start()
    for step in range(400, 1000, 100):
        make_checkpoint(inventory.runs, step)
        time.sleep(0.1)
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(inventory.ask("kind = 'checkpoint'")) == 9
    assert not list((catalogue_path(inventory.runs, inventory.data).parent).glob("*.partial"))


def test_copies_and_annotations_are_in_it(inventory: SmallInventory) -> None:
    folder = inventory.runs / RUN
    copy = Copy(
        "a" * 64, inventory.checkpoints[0].id, "checkpoints/x", "s3://bucket/x", 5, True, "2026-01-01", "as sent"
    )
    recorder = CopyRecorder(folder)
    recorder.record(copy)
    inventory.ask()
    CopyRecorder(folder).record(Copy(**{**vars(copy), "problem": "gone"}))
    annotate(folder, Annotation("tag", "good"))
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        assert catalogue.rows("SELECT problem FROM copies") == [("gone",)]
        assert catalogue.rows("SELECT kind, text FROM annotations") == [("tag", "good")]


def test_a_torn_line_of_copies_is_left_out_and_other_damage_is_named(tmp_path: Path) -> None:
    copy = Copy("a", "b", "n", "l", 5, True, None, "as sent")
    CopyRecorder(tmp_path).record(copy)
    file = next((tmp_path / "copies").iterdir())
    file.write_text(file.read_text() + '{"id": "c", ')
    assert len(read_copies(tmp_path)) == 1
    file.write_text(file.read_text() + "\n")
    with pytest.raises(TrainyardError, match="no record of a copy"):
        read_copies(tmp_path)


def test_a_line_that_the_disk_had_no_room_for_spoils_none_of_the_next(tmp_path: Path) -> None:
    copy = Copy("a", "b", "n", "l", 5, True, None, "as sent")
    recorder = CopyRecorder(tmp_path)
    recorder.record(copy)
    size = next((tmp_path / "copies").iterdir()).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # Python ignores SIGXFSZ, so the write fails
    try:
        with pytest.raises(OSError, match="File too large"):
            recorder.record(replace(copy, name="second"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    recorder.record(replace(copy, name="third"))
    assert [each.name for each in read_copies(tmp_path)] == ["n", "third"]
