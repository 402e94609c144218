"""What is measured of a process and those that it starts."""

import os
import sys
import time
from pathlib import Path

import pytest

from data_tools.benchmark.process_tree import memory_of, run
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


def test_a_file_that_is_mapped_counts_once() -> None:
    before = memory_of(os.getpid())
    import mmap

    slot = os.memfd_create("slot")
    try:
        os.ftruncate(slot, 60 * MB)
        with mmap.mmap(slot, 60 * MB) as mapped:
            mapped.write(b"x" * (60 * MB))
            assert 55 * MB < memory_of(os.getpid()) - before < 70 * MB
    finally:
        os.close(slot)


def test_files_on_a_disk_count_where_they_are_asked_for(tmp_path: Path) -> None:
    import mmap

    (tmp_path / "file").write_bytes(bytes(60 * MB))
    before = [memory_of(os.getpid(), mapped) for mapped in (True, False)]
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped.find(b"x") == -1, "every page is read"
        with_file, without = (memory_of(os.getpid(), each) for each in (True, False))
        held = b"x" * (20 * MB)
        assert 15 * MB < memory_of(os.getpid(), mapped=False) - without < 25 * MB, held[:1]
    assert with_file - before[0] > 55 * MB
    assert without - before[1] < 5 * MB


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
