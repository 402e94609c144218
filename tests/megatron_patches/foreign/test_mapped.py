"""Files that are mapped, more of them than a process may have open."""

import errno
import resource
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.errors import Refused
from megatron_patches.foreign import mapped as module
from megatron_patches.foreign.mapped import map_file


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Soft and hard limit of open files, as the process believes them to be."""
    found = [module.SPARE, 1 << 16]
    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(found))

    def change(which: int, now: tuple[int, int]) -> None:
        found[:] = now

    monkeypatch.setattr(resource, "setrlimit", change)
    return found


def written(path: Path, content: bytes = b"abcdef") -> Path:
    path.write_bytes(content)
    return path


def test_bytes_and_views_of_them(tmp_path: Path) -> None:
    found = map_file(written(tmp_path / "file"))
    assert found.tobytes() == b"abcdef" and found[1:5].view("<u2").tolist() == [0x6362, 0x6564]
    assert not found.flags.writeable
    empty = map_file(written(tmp_path / "empty", b""))
    assert empty.dtype == np.uint8 and len(empty) == 0


def test_a_process_takes_what_the_system_grants(tmp_path: Path, limits: list[int]) -> None:
    map_file(written(tmp_path / "file"))
    assert limits == [1 << 16, 1 << 16]


def test_an_endless_limit_is_no_number(tmp_path: Path, limits: list[int]) -> None:
    limits[1] = resource.RLIM_INFINITY
    map_file(written(tmp_path / "file"))
    assert limits[0] > 1 << 16 and limits[1] == resource.RLIM_INFINITY


def test_more_files_than_the_system_grants(tmp_path: Path, limits: list[int]) -> None:
    limits[1] = module.SPARE
    with pytest.raises(Refused, match=r"files open, and may have 128. Raise that limit \(ulimit -Hn\), or join"):
        map_file(written(tmp_path / "file"))


def test_more_maps_than_the_system_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", fail)
    with pytest.raises(Refused, match=r"vm.max_map_count"):
        map_file(written(tmp_path / "file"))
