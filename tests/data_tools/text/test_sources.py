import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_tools.text.sources import Document, find_sources, read_documents
from megatron_patches.errors import TrainyardError

TEXTS = ["first", "", "dritte \u00e9\u4e2d\U0001f600", "a\nb\u2028c", "x" * 3000]
LINES = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS).encode()


def write_parquet(path: Path, columns: dict[str, list[str | None]]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)


WRITERS: dict[str, Callable[[Path], object]] = {
    ".jsonl": lambda path: path.write_bytes(LINES),
    ".jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES[:50]) + gzip.compress(LINES[50:])),
    ".jsonl.zst": lambda path: path.write_bytes(
        zstandard.compress(LINES[:50]) + zstandard.ZstdCompressor(write_content_size=False).compress(LINES[50:])
    ),
    ".parquet": lambda path: write_parquet(path, {"id": ["1"] * len(TEXTS), "text": list(TEXTS)}),
}


def texts_of(path: Path, *keys: str) -> list[tuple[str, ...]]:
    return [document.texts for document in read_documents(path, keys or ["text"])]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_documents(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"source{suffix}"
    WRITERS[suffix](path)
    documents = list(read_documents(path, ["text"]))
    assert [document.texts[0] for document in documents] == TEXTS
    assert [document.text_bytes for document in documents] == [len(text.encode()) for text in TEXTS]
    positions = [document.source_bytes for document in documents]
    assert positions == sorted(positions) and positions[-1] == path.stat().st_size


def test_a_txt_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("één\r\n\ntwo\n".encode())
    assert list(read_documents(tmp_path / "a.txt", ["text"])) == [Document(("één\r\n\ntwo\n",), 12, 12)]
    with pytest.raises(TrainyardError, match="one text without keys, but 2"):
        texts_of(tmp_path / "a.txt", "a", "b")
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(TrainyardError, match=r"a.txt is not UTF-8 .*iconv"):
        texts_of(tmp_path / "a.txt")


def test_keys_come_in_the_order_asked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "1", "b": "2"}\n\n  \n{"b": "4", "a": ""}')
    write_parquet(tmp_path / "a.parquet", {"a": ["1", ""], "b": ["2", "4"]})
    for name in ("a.jsonl", "a.parquet"):
        assert texts_of(tmp_path / name, "b", "a") == [("2", "1"), ("4", "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut', r"a.jsonl, line 3: not JSON"),
        (b'{"text": "\xff"}', r"a.jsonl, line 3: not JSON in UTF-8"),
        (b'["text"]', r"line 3: expected an object .* found list"),
        (b'{"body": "x", "url": "y"}', r"line 3: no key 'text', only body, url; see --json-keys"),
        (b'{"text": null}', r"line 3: 'text' is NoneType, expected a text"),
        (b'{"text": 5}', r"line 3: 'text' is int"),
        (b'{"text": "a\\ud800b"}', r"line 3: 'text' has half of a surrogate pair"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n\n' + line + b"\n")
    with pytest.raises(TrainyardError, match=message):
        texts_of(tmp_path / "a.jsonl")


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, {"text": ["a", "b", None]})
    with pytest.raises(TrainyardError, match="row 3: 'text' is NoneType"):
        texts_of(path)
    with pytest.raises(TrainyardError, match="no column 'body', only text"):
        texts_of(path, "body")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TrainyardError, match="not a whole parquet file"):
        texts_of(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_no_whole_one(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(TrainyardError, match=r"a.jsonl.* is damaged after line|line \d+: not JSON"):
        texts_of(path)


def test_files_keep_their_order_and_folders_are_sorted(tmp_path: Path) -> None:
    for name in ("z.txt", "b/2.txt", "b/10.txt", "b/a/3.jsonl", "b/README.md", "b/_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    names = [source.name for source in find_sources([tmp_path / "z.txt", tmp_path / "b"])]
    assert names == ["z.txt", "b/10.txt", "b/2.txt", "b/a/3.jsonl"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.jsonl", "does not exist"), ("a.csv", "unknown format"), ("empty", "has no file"), ("e.jsonl", "0 bytes")],
)
def test_unusable_sources(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "e.jsonl").touch()
    with pytest.raises(TrainyardError, match=message):
        find_sources([tmp_path / name])
