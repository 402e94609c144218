"""Events on a disk that fills up: a sentence with the folder, and the file stays readable."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_patches.errors import TrainingFailed
from megatron_patches.events.reading import read_events, scan_events
from megatron_patches.events.writing import EventWriter

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root can")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr!r}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@needs_root
def test_a_full_disk_is_named_and_spoils_nothing(small_disk: Path) -> None:
    writer = EventWriter(small_disk / "events", "0001", "trainer")
    written = 0
    with pytest.raises(TrainingFailed, match=rf"{small_disk}/events/0001-trainer.jsonl: .* make room in {small_disk}"):
        while True:
            writer.write("message", text="x" * 1000)
            written += 1
    assert 20 < written < 70
    assert len(read_events(small_disk / "events")) == written
    with pytest.raises(TrainingFailed):  # still full, and still no part of a line
        writer.write("message", text="y" * 4000)
    (small_disk / "events" / "0001-trainer.jsonl").rename(small_disk / "old.jsonl")
    shutil.rmtree(small_disk / "events")
    assert (small_disk / "old.jsonl").read_bytes().endswith(b"}\n")
    writer.close()


@needs_root
def test_events_go_on_once_there_is_room(small_disk: Path) -> None:
    writer = EventWriter(small_disk, "0001", "trainer")
    writer.write("message", text="first")
    (small_disk / "filler").write_bytes(b"")
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(b"x" * 4096)
    with pytest.raises(TrainingFailed):
        writer.write("message", text="lost" * 2000)
    (small_disk / "filler").unlink()
    writer.write("message", text="second")
    assert [event.facts["text"] for event in read_events(small_disk)] == ["first", "second"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingFailed, match="events cannot be written"):
        EventWriter(tmp_path / "file" / "events", "0001", "trainer")


def test_no_event_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "0001-trainer.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(TrainingFailed, match="not a plain file"):
        EventWriter(tmp_path, "0001", "trainer")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_file_system_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = EventWriter(tmp_path, "0001", "trainer")

    class Stale:
        def fileno(self) -> int:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(writer, "_file", Stale())
    with pytest.raises(TrainingFailed, match="Stale file handle"):
        writer.write("message", text="x")


def test_a_line_that_is_too_long_costs_no_other_line(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, "0001", "trainer")
    writer.write("message", text="first")
    writer.write("message", text="x" * (9 << 20))
    writer.write("message", text="last")
    events, problems = scan_events(tmp_path)
    assert [event.facts["text"] for event in events] == ["first", "last"]
    assert len(problems) == 1
    assert "0001-trainer.jsonl:2 is not an event: more than 4,194,304 bytes long" in problems[0]


def test_each_event_is_a_line_at_once(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, "0001", "trainer")
    writer.write("step", loss=float("nan"), text="caf\u00e9")
    (line,) = (tmp_path / "0001-trainer.jsonl").read_text().splitlines()
    assert json.loads(line).items() >= {"kind": "step", "loss": "nan", "text": "caf\u00e9"}.items()
