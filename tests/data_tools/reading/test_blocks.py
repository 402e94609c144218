"""Blocks of every format: what they hold, from which place they go on, and what is hashed."""

import bz2
import gzip
import hashlib
import json
import lzma
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.reading.block import BEGINNING, Block
from data_tools.reading.entries import documents_of
from data_tools.reading.files import lines_part, parquet_part, rows_part
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.parts import file_part
from data_tools.reading.files.sources import parts_of
from megatron_patches.errors import Damaged, TrainyardError
from tests.hostile.cases import TIMES

TEXTS = [f"text {number} " + "\u00e9x" * (number * 7919 % 500) for number in range(200)]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts).encode()


def write_arrow(path: Path, texts: list[Any], kind: str = "stream", data_type: Any = None) -> None:
    batches = [{"n": list(texts[at : at + 30]), "text": texts[at : at + 30]} for at in range(0, len(texts), 30)]
    schema = pyarrow.schema({"n": pyarrow.string(), "text": data_type or pyarrow.string()})
    new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
    with pyarrow.OSFile(str(path), "wb") as sink, new(sink, schema) as writer:
        for each in batches:
            writer.write_batch(pyarrow.record_batch(each, schema=schema))


def write_parquet(path: Path, texts: list[Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": list(texts), "text": texts}), path, row_group_size=70)


WRITERS: dict[str, Callable[[Path], object]] = {
    ".jsonl": lambda path: path.write_bytes(lines(TEXTS)),
    ".jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines(TEXTS[:90])) + gzip.compress(lines(TEXTS[90:]))),
    ".jsonl.zst": lambda path: path.write_bytes(zstandard.compress(lines(TEXTS))),
    ".jsonl.bz2": lambda path: path.write_bytes(bz2.compress(lines(TEXTS))),
    ".jsonl.xz": lambda path: path.write_bytes(lzma.compress(lines(TEXTS))),
    ".json": lambda path: path.write_text(json.dumps([{"text": text} for text in TEXTS], indent=2)),
    ".parquet": lambda path: write_parquet(path, TEXTS),
    ".arrow": lambda path: write_arrow(path, TEXTS),
    ".listed.arrow": lambda path: write_arrow(path, TEXTS, "file"),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines_part, parquet_part, rows_part):
        monkeypatch.setattr(module, "BLOCK_BYTES", 4096)


def part_of(path: Path, largest: int = 1 << 20) -> FilePart:
    return file_part(path, path.name, ["text"], largest)


def texts_in(blocks: Iterator[Block] | list[Block]) -> list[str]:
    found: list[str] = []
    for block in blocks:
        documents = documents_of(block, ["text"])
        assert not documents.bad
        found += documents.texts[0]
    return found


@pytest.mark.parametrize("suffix", WRITERS)
def test_reading_goes_on_behind_any_block(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path)
    part = part_of(path)
    blocks = list(part.blocks())
    assert len(blocks) > 10 and texts_in(blocks) == TEXTS
    assert [block.first for block in blocks[1:]] == [block.first + block.entries for block in blocks[:-1]]
    assert max(len(block.content) for block in blocks) < 9000
    assert blocks[-1].source_bytes <= part.size
    for number in {0, 1, len(blocks) // 2, len(blocks) - 2, len(blocks) - 1}:
        block = blocks[number]
        rest = list(part.blocks(json.loads(json.dumps(block.position))))
        assert texts_in(rest) == texts_in(blocks[number + 1 :])
        assert not rest or rest[0].first == block.first + block.entries


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("gone_on", [False, True])
def test_all_bytes_of_the_file_are_hashed(tmp_path: Path, suffix: str, gone_on: bool) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path)
    part = part_of(path)
    after = list(part.blocks())[5].position if gone_on else BEGINNING
    for _ in part.blocks(after, hashed=True):
        pass
    assert part.content() == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_that_has_become_shorter_is_told(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path)
    position = list(part_of(path).blocks())[-1].position
    monkeypatch.setattr("tests.data_tools.reading.test_blocks.TEXTS", TEXTS[:100])
    WRITERS[suffix](path)
    with pytest.raises(Damaged, match="it has changed since"):
        list(part_of(path).blocks(position))


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_damaged_arrow_file_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.arrow"
    write_arrow(path, TEXTS, kind)
    whole = path.read_bytes()
    for kept in (0, 5, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(Damaged, match=r"a\.arrow is (not a whole arrow file|empty)"):
            list(parts_of([path]).parts[0].blocks())
    path.write_bytes(whole + b"x" * 16)
    with pytest.raises(Damaged, match=r"a\.arrow"):
        list(part_of(path).blocks())


@pytest.mark.parametrize("data_type", ["large_string", "string_view", "dictionary"])
def test_texts_of_every_kind_of_column(tmp_path: Path, data_type: str) -> None:
    types = {"large_string": pyarrow.large_string(), "string_view": pyarrow.string_view()}
    kind = types.get(data_type) or pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    write_arrow(tmp_path / "a.arrow", ["a", "b"] * 20 if data_type == "dictionary" else TEXTS, data_type=kind)
    blocks = list(part_of(tmp_path / "a.arrow").blocks())
    assert texts_in(blocks) == (["a", "b"] * 20 if data_type == "dictionary" else TEXTS)
    assert max(len(block.content) for block in blocks) < 9000


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_bad_rows_are_counted_and_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    (write_parquet if suffix == ".parquet" else write_arrow)(path, ["a", None, "", None, "b"])
    [block] = part_of(path).blocks()
    documents = documents_of(block, ["text"])
    assert (documents.texts, list(documents.numbers)) == ([["a", "", "b"]], [1, 3, 5])
    assert [each.number for each in documents.bad] == [2, 4]
    assert documents.bad[1].reason == f"{path}, row 4: 'text' is null, expected a text; an empty one is allowed"


def test_a_row_that_is_no_utf8_is_a_bad_one(tmp_path: Path) -> None:
    column = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"a\xff")]
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    [block] = part_of(tmp_path / "a.parquet").blocks()
    documents = documents_of(block, ["text"])
    assert documents.texts == [["a"]] and documents.bad[0].number == 2
    assert "row 2 is not UTF-8" in documents.bad[0].reason


def test_a_column_that_the_tenth_file_lacks_is_found_before_any_work(tmp_path: Path) -> None:
    for number in range(11):
        pyarrow.parquet.write_table(
            pyarrow.table({"body" if number == 9 else "text": ["a"]}), tmp_path / f"{number:02}.parquet"
        )
    with pytest.raises(TrainyardError, match=r"09\.parquet: no column 'text', only body; see --json-keys"):
        parts_of([tmp_path])


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".txt"])
def test_a_document_beyond_the_limit_is_a_bad_entry_among_good_ones(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    content = lines(["a", "x" * 100_000, "b", "y" * 10_000, "z" * 19_000])
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    found = [documents_of(block, ["text"], 20_000) for block in part_of(path, 20_000).blocks()]
    texts = [text for each in found for text in each.texts[0]]
    bad = [each for documents in found for each in documents.bad]
    assert [len(text) for text in texts] == ([] if suffix == ".txt" else [1, 1, 10_000, 19_000])
    assert [each.number for each in bad] == [1 if suffix == ".txt" else 2]
    assert "is longer than 0.0191 MiB, the limit" in bad[0].reason


@pytest.mark.parametrize("largest", [5000, 100_000])
def test_memory_does_not_follow_the_longest_line(tmp_path: Path, largest: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * 5_000_000 + b"\n" + lines(["a"]))
    blocks = list(part_of(tmp_path / "a.jsonl", largest).blocks())
    assert sum(len(block.content) for block in blocks) < largest + 3 * 4096
    assert sum(block.entries for block in blocks) == 2 and blocks[-1].source_bytes == 5_000_000 + 1 + len(lines(["a"]))


def gzip_members() -> dict[str, bytes]:
    one = gzip.compress(lines(["a"]))
    return {
        "padded": one + bytes(1000),
        "padded between": one + bytes(7) + one,
        "garbage": one + b"garbage",
        "half a header": one + one[:5],
        "cut": one[:-3],
        "checksum": one[:-8] + b"aaaa" + one[-4:],
        "length": one[:-4] + b"aaaa",
        "only zeros": bytes(30),
    }


@pytest.mark.parametrize("case", gzip_members())
def test_the_ends_of_gzip_files_are_taken_as_python_takes_them(tmp_path: Path, case: str) -> None:
    content = gzip_members()[case]
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    try:
        expected = gzip.decompress(content)
    except (EOFError, OSError):
        with pytest.raises(Damaged, match=r"a\.jsonl\.gz is damaged \(.*\); copy it again"):
            list(part_of(tmp_path / "a.jsonl.gz").blocks())
    else:
        assert b"".join(block.content for block in part_of(tmp_path / "a.jsonl.gz").blocks()) == expected


@settings(max_examples=10 * TIMES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lines_of_any_length_are_numbered_as_they_stand(tmp_path: Path, data: st.DataObject) -> None:
    drawn = random.Random(data.draw(st.integers(0, 2**32)))
    ends = [drawn.choice(["\n", "\r\n", "\n\n", "\n \t\n"]) for _ in range(drawn.randrange(60))]
    entries = [drawn.choice([0, 1, 50, 4096, 9000]) for _ in ends]
    content = "".join(f'{{"text": "{"x" * size}"}}{end}' for size, end in zip(entries, ends, strict=True))
    content = content.rstrip() if drawn.random() < 0.5 else content
    path = tmp_path / "a.jsonl"
    path.write_text(content, newline="")
    found = {
        number: text
        for block in part_of(path).blocks()
        for documents in [documents_of(block, ["text"])]
        for number, text in zip(documents.numbers, documents.texts[0], strict=True)
    }
    assert found == {
        number: json.loads(line)["text"] for number, line in enumerate(content.split("\n"), 1) if line.strip()
    }
