"""What is measured of a process and those that it starts."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools.benchmark.process_tree import run
from megatron_patches.errors import TrainyardError

MB = 1_000_000
WITH_A_CHILD = """
import mmap, os, sys, time
slot = os.memfd_create("slot")
os.pwrite(slot, bytes(40_000_000), 0)
shared = mmap.mmap(-1, 30_000_000)
shared.write(b"x" * 30_000_000)
if child := os.fork():
    os.waitpid(child, 0)
else:
    held = b"x" * 50_000_000
    shared.seek(0); shared.read()
    while time.process_time() < 0.5: pass
"""


@pytest.mark.slow
def test_the_memory_and_the_time_of_all_processes(tmp_path: Path) -> None:
    ended = run([sys.executable, "-c", WITH_A_CHILD], tmp_path / "log", 30, memory=True)
    assert (ended.code, ended.said) == (0, "")
    # 40 MB in a file without a name, 30 MB that both have mapped, 50 MB of the child's own, two interpreters
    assert 115 * MB < ended.memory < 150 * MB
    assert 0.45 < ended.cpu < 3
    assert ended.seconds > 0.45


MEASURES_ITSELF = """
import mmap, os, sys
from data_tools.benchmark.process_tree import memory_of
def now(mapped=True): return memory_of(os.getpid(), mapped)
now(), now(False)  # what the first measurement leaves in memory
"""
MAPPED_SLOT = """
before = now()
slot = os.memfd_create("slot")
os.ftruncate(slot, 60_000_000)
with mmap.mmap(slot, 60_000_000) as mapped:
    mapped.write(b"x" * 60_000_000)
    print(now() - before)
"""
MAPPED_FILE = """
before, before_without = now(), now(False)
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    assert mapped.find(b"x") == -1, "every page is read"
    with_file, without = now(), now(False)
    held = b"x" * 20_000_000
    print(with_file - before, without - before_without, now(False) - without)
"""


def grown(code: str, *arguments: str) -> list[int]:
    """What a process of its own finds that it has grown by: one of pytest's grows and shrinks by other tests too."""
    words = [sys.executable, "-c", MEASURES_ITSELF + code, *arguments]
    return list(map(int, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()))


@pytest.mark.slow
def test_a_file_that_is_mapped_counts_once() -> None:
    (found,) = grown(MAPPED_SLOT)
    assert 55 * MB < found < 70 * MB


@pytest.mark.slow
def test_files_on_a_disk_count_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(60 * MB))
    with_file, without, held = grown(MAPPED_FILE, str(tmp_path / "file"))
    assert with_file > 55 * MB
    assert without < 5 * MB
    assert 15 * MB < held < 25 * MB


@pytest.mark.slow
def test_how_it_ended_and_what_it_said(tmp_path: Path) -> None:
    words = "import sys; print('on stdout', flush=True); sys.exit('on stderr')"
    ended = run([sys.executable, "-c", words], tmp_path / "log", 30, memory=False)
    assert (ended.code, ended.said, ended.memory) == (1, "on stdout\non stderr", 0)


@pytest.mark.slow
def test_what_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    words = f"import os, time; os.fork(); open('{tmp_path}/%d' % os.getpid(), 'w').close(); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(TrainyardError, match="took longer than it may"):
        run([sys.executable, "-c", words], tmp_path / "log", 0.7, memory=False)
    assert time.monotonic() - started < 10
    left = [int(file.name) for file in tmp_path.iterdir() if file.name != "log"]
    assert len(left) == 2
    deadline = time.monotonic() + 5
    while any(alive(each) for each in left):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
