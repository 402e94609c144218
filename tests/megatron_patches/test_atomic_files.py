import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from megatron_patches import atomic_files
from megatron_patches.atomic_files import (
    HashingWriter,
    append_to,
    create_file,
    create_once,
    hash_file,
    open_plain,
    temporary_path,
    write_atomically,
)


def test_hashing_writer_hashes_every_kind_of_buffer(tmp_path: Path) -> None:
    array = np.arange(12, dtype="<u2").reshape(3, 4)
    with HashingWriter(tmp_path / "file") as writer:
        for content in (b"ab", bytearray(b"cd"), array.data, np.empty((0, 2), np.float32).data):
            writer.write(content)
    content = b"abcd" + array.tobytes()
    assert (tmp_path / "file").read_bytes() == content
    assert (writer.sha256, writer.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert hash_file(tmp_path / "file") == (writer.sha256, writer.size)


def test_hash_file_reads_more_than_one_chunk(tmp_path: Path) -> None:
    content = bytes(range(256)) * (atomic_files.READ_CHUNK_BYTES // 256) + b"tail"
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == (hashlib.sha256(content).hexdigest(), len(content))
    for limit in (0, 1, len(content) - 1, len(content), len(content) + 1):
        beginning = content[:limit]
        assert hash_file(tmp_path / "file", limit) == (hashlib.sha256(beginning).hexdigest(), len(beginning))


def test_an_exception_removes_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), HashingWriter(tmp_path / "file") as writer:
        writer.write(b"half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_removes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(monkeypatch, "fsync")
    with pytest.raises(OSError, match="no space"), HashingWriter(tmp_path / "file") as writer:
        writer.write(b"whole")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_replacement_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    _fail_at(monkeypatch, step)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_replacement(tmp_path: Path) -> None:
    for content in (b"old", b"newer"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def _fail_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    if step == "fsync":
        monkeypatch.setattr("megatron_patches.atomic_files.os.fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)


class TestCreateOnce:
    @pytest.fixture(params=[None, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
    def links(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """File systems with hard links, and without them, as each says so."""
        if request.param is not None:

            def link(*_: object, **__: object) -> None:
                raise OSError(request.param, os.strerror(request.param))

            monkeypatch.setattr(os, "link", link)

    def test_the_first_writer_wins(self, links: None, tmp_path: Path) -> None:
        assert create_once(tmp_path / "file", b"first")
        assert not create_once(tmp_path / "file", b"second")
        assert (tmp_path / "file").read_bytes() == b"first"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_of_many_at_once(self, links: None, tmp_path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda number: create_once(tmp_path / "file", b"%d" % number), range(32)))
        assert sum(made) == 1
        assert (tmp_path / "file").read_bytes() == b"%d" % made.index(True)

    def test_a_missing_folder_is_an_error(self, links: None, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            create_once(tmp_path / "none" / "file", b"content")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_text("precious")
    return tmp_path / "victim"


@pytest.mark.parametrize("kind", ["link", "other name", "pipe", "nothing"])
def test_what_has_the_name_leads_no_byte_elsewhere(tmp_path: Path, victim: Path, kind: str) -> None:
    path = tmp_path / "written"
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "other name":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    with HashingWriter(path) as writer:
        writer.write(b"new")
    assert (path.read_bytes(), path.is_symlink(), victim.read_text()) == (b"new", False, "precious")


def test_a_new_file_follows_no_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "would-be-made")
    for path in (tmp_path / "link", victim):
        with pytest.raises(FileExistsError):
            create_file(path)
    assert not (tmp_path / "would-be-made").exists()
    assert victim.read_text() == "precious"


def test_a_replaced_file_is_no_link_any_more(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    write_atomically(tmp_path / "link", b"new")
    assert ((tmp_path / "link").read_bytes(), victim.read_text()) == (b"new", "precious")


def test_temporary_names_cannot_be_foreseen(tmp_path: Path) -> None:
    names = {temporary_path(tmp_path / "x").name for _ in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {len("x..partial") + 16}


@pytest.mark.parametrize("name", ["pipe", "folder", "zeros"])
def test_only_plain_files_are_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for read in (hash_file, open_plain):
        with pytest.raises(OSError, match="is not a plain file"):
            read(tmp_path / name)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        with append_to(tmp_path / "log") as file:
            file.write(content)
    assert (tmp_path / "log").read_bytes() == b"onetwo"


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "pipe with a reader", "folder"])
def test_nothing_is_appended_to_what_was_planted(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "log", tmp_path / "victim"
    reader = None
    if "link" in kind:
        path.symlink_to(victim)
        if kind == "link":
            victim.write_bytes(b"mine")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "pipe with a reader" else None
    with pytest.raises(OSError, match=r"plain file|directory"):
        append_to(path)
    if reader is not None:
        os.close(reader)
    assert (victim.read_bytes() == b"mine") if kind == "link" else not victim.exists()
