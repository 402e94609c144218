"""Preprocessing that is killed, refused, or runs out of disk, and what becomes of what it had done."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path
from data_tools.datasets.preprocessing import preprocess as module
from data_tools.datasets.preprocessing import work_folder
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.preprocessing.work_folder import locked_folder, remove_leftovers
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.proof import DifferentIds
from data_tools.reading.block import Block
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.atomic_files import temporary_path
from megatron_patches.errors import Refused, TrainyardError

CHECKOUT = Path(__file__).resolve().parents[4]
Request = Callable[..., PreprocessRequest]


@pytest.fixture
def request_for(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request of two files with many blocks, whose journal is written after each of them."""
    monkeypatch.setattr("data_tools.reading.files.lines_part.BLOCK_BYTES", 200)
    monkeypatch.setattr(work_folder, "SECONDS", 0.0)
    monkeypatch.setattr(work_folder, "SHARE", float("inf"))
    for name in "ab":
        lines = (json.dumps({"text": f"{name}, text number {each}"}) + "\n" for each in range(30))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))

    def make(**settings: Any) -> PreprocessRequest:
        inputs = settings.pop("inputs", [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
        return PreprocessRequest(inputs, tmp_path / "out" / "data", tokenizer_folder, append_eod=True, **settings)

    return make


def interrupted(request: PreprocessRequest, documents: int = 20) -> None:
    """Runs a request up to a number of documents."""

    def stop(progress: Any) -> None:
        if progress.documents >= documents:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(request, stop)


def test_killed_at_any_instant_it_ends_with_the_same_bytes(tmp_path: Path, tokenizer_folder: Path) -> None:
    words = [tmp_path, tokenizer_folder, 3, os.getpid()]
    command = [sys.executable, "-m", "tests.data_tools.datasets.preprocessing.killed", *map(str, words)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same") == 7


def test_what_was_interrupted_is_gone_on_with(tmp_path: Path, request_for: Request) -> None:
    whole = replace(request_for(), output=tmp_path / "whole")
    preprocess(whole)
    request, told = request_for(), list[str]()
    interrupted(request)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.unfinished"]
    first: list[int] = []
    preprocess(replace(request, workers=2, max_bad=5), lambda progress: first.append(progress.documents), told.append)
    assert "note: continuing" in told[0] and "documents tokenized" in told[0]
    assert first[0] > 10
    for ending in (".bin", ".idx"):
        assert (tmp_path / f"whole{ending}").read_bytes() == (tmp_path / "out" / f"data{ending}").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data.bin", "data.idx", "data.manifest.json"]


@pytest.mark.parametrize("change", ["option", "input"])
def test_work_of_another_request_is_kept_until_somebody_drops_it(
    tmp_path: Path, request_for: Request, change: str
) -> None:
    interrupted(request_for())
    other = request_for(parse_special=True) if change == "option" else request_for()
    if change == "input":
        (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    before = sorted(path.name for path in (tmp_path / "out" / "data.unfinished").iterdir())
    named = "an option" if change == "option" else "the inputs .names, sizes"
    with pytest.raises(Refused, match=rf"unfinished work \(.*documents tokenized.*{named}.*add --overwrite to drop it"):
        preprocess(other)
    assert sorted(path.name for path in (tmp_path / "out" / "data.unfinished").iterdir()) == before
    told = list[str]()
    preprocess(replace(other, overwrite=True), tell=told.append)
    assert "it is removed, work starts from the beginning" in told[0]
    assert IndexedDataset(tmp_path / "out" / "data").number_of_documents == (60 if change == "option" else 31)


def test_a_full_disk_loses_nothing_that_was_done(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, [1500]

    def full(descriptor: int, content: Any) -> int:
        left[0] -= len(content)
        if left[0] < 0 and ".unfinished" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    told = list[str]()
    with pytest.raises(OSError, match=r"No space left on device; free space there.*data.unfinished"):
        preprocess(request_for(), tell=told.append)
    assert "the same command goes on from there" in told[-1]
    monkeypatch.setattr(os, "write", write)
    preprocess(request_for(), tell=told.append)
    assert "note: continuing" in told[-1]
    assert IndexedDataset(tmp_path / "out" / "data").number_of_documents == 60


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path, request_for: Request) -> None:
    code = (
        "import sys, os, pathlib\nfrom data_tools.datasets.preprocessing.work_folder import locked_folder\n"
        "with locked_folder(pathlib.Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out" / "data")]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(Refused, match=rf"process {other.pid} on .* is making this dataset"):
            preprocess(request_for())
        other.kill()
    preprocess(request_for())


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path, request_for: Request) -> None:
    (tmp_path / "out").mkdir()
    prefix = tmp_path / "out" / "data"
    for name in ("data.bin", "data.idx", "data.manifest.json", "data2.bin"):
        temporary_path(tmp_path / "out" / name).touch()
    with locked_folder(prefix) as work:
        (work.path / "read-0-00000.bin").write_bytes(b"x")
    preprocess(request_for())
    left = sorted(path.name.partition(".")[0] for path in (tmp_path / "out").iterdir())
    assert left == ["data", "data", "data", "data2"]
    remove_leftovers([tmp_path / "nowhere" / "data"])


def test_a_part_whose_ids_differ_is_done_again_by_the_reference(
    tmp_path: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(replace(request_for(shard_tokens=100), output=tmp_path / "expected"))
    asked: list[tuple[str, ...]] = []

    class WrongLater(EncodingPool):
        """Finds other ids in the middle of the second file."""

        def encode(
            self, blocks: Iterable[Block], by_reference: Iterable[str] = (), after: Any = None
        ) -> Iterator[tuple[Block, EncodedBlock]]:
            asked.append(tuple(by_reference))
            for block, encoded in super().encode(blocks, tuple(by_reference), after):
                if block.origin.endswith("b.jsonl") and block.first > 15 and not by_reference:
                    raise DifferentIds(block.origin, f"{block.origin}, line {block.first}", "fast", "gave other ids")
                yield block, encoded

    monkeypatch.setattr(module, "EncodingPool", WrongLater)
    told = list[str]()
    made = preprocess(request_for(shard_tokens=100), tell=told.append)
    assert asked == [(), (str(tmp_path / "b.jsonl"),)] and "line" in told[0]
    assert len(made.datasets) > 5
    for each in made.datasets:
        expected = tmp_path / each.prefix.name.replace("data", "expected")
        for ending in (".bin", ".idx"):
            assert (
                expected.with_name(expected.name + ending).read_bytes()
                == each.prefix.with_name(each.prefix.name + ending).read_bytes()
            )
        proof = read_manifest(manifest_path(each.prefix)).by.proof
        assert proof is not None and proof["by_reference"] == ["b.jsonl"]
    assert load_tokenizer(request_for().tokenizer).id in read_manifest(manifest_path(made.datasets[0].prefix)).parents


def test_bad_shares(request_for: Request) -> None:
    with pytest.raises(TrainyardError, match=r"--shard 8/8: shards are counted from 0.*--array=0-7"):
        preprocess(request_for(share=(8, 8)))
