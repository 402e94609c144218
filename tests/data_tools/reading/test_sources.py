import bz2
import gzip
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.entries import documents_of, read_documents
from data_tools.reading.files.parts import file_part
from data_tools.reading.files.sources import describe_not_read, parts_of
from megatron_patches.errors import Damaged, TrainyardError

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


def texts_of(path: Path, *keys: str, largest: int = LARGEST_DOCUMENT) -> list[tuple[str, ...]]:
    keys = keys or ("text",)
    return list(read_documents(file_part(path, path.name, keys, largest), keys, largest))


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_documents(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"source{suffix}"
    WRITERS[suffix](path)
    blocks = list(file_part(path, path.name, ["text"]).blocks())
    documents = [documents_of(block, ["text"]) for block in blocks]
    assert [text for each in documents for text in each.texts[0]] == TEXTS
    assert [number for each in documents for number in each.numbers] == [1, 2, 3, 4, 5]
    assert sum(each.text_bytes for each in documents) == sum(len(text.encode()) for text in TEXTS)
    positions = [block.source_bytes for block in blocks]
    assert positions == sorted(positions) and positions[-1] == path.stat().st_size


def test_a_txt_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("één\r\n\ntwo\n".encode())
    assert texts_of(tmp_path / "a.txt") == [("één\r\n\ntwo\n",)]
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
        (b'{"text": "cut', r"a.jsonl, line 3 is not JSON"),
        (b'{"text": "\xff"}', r"a.jsonl, line 3 is not UTF-8 text"),
        (b'["text"]', r"line 3 is not a JSON object but a list; expected an object"),
        (b"[" * 100_000, "line 3 is nested too deeply"),
        (b'{"a": ' * 100_000, "line 3 is nested too deeply"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "line 3 is not JSON .*4300 digits"),
        (b"null", "line 3 is not a JSON object but null"),
        (b'{"text": "\x1b]52;"}', "line 3 is not JSON"),
        (b'{"a\\u001b]52;c": 1}', r"only a\\x1b\]52;c; see"),
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
    with pytest.raises(TrainyardError, match=r"a.jsonl.* is damaged .*; copy it again|line \d+ is not JSON"):
        texts_of(path)


def test_files_keep_their_order_and_folders_are_sorted(tmp_path: Path) -> None:
    for name in ("z.txt", "b/2.txt", "b/10.txt", "b/a/3.jsonl", "b/README.md", "b/_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = parts_of([tmp_path / "z.txt", tmp_path / "b"])
    assert [part.name for part in found.parts] == ["z.txt", "b/10.txt", "b/2.txt", "b/a/3.jsonl"]
    assert [each.name for each in found.not_read] == ["b/README.md", "b/_SUCCESS"]
    assert describe_not_read(found.not_read) == (
        "2 not read: b/README.md is of another format; b/_SUCCESS is of another format"
    )


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"text": text}) + "\n")


def names_below(folder: Path) -> tuple[list[str], dict[str, str]]:
    found = parts_of([folder])
    return [part.name for part in found.parts], {each.name: each.reason for each in found.not_read}


def test_linked_folders_are_read_and_circles_noticed(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for name in ("en/a.jsonl", "z/c.jsonl"):
        write_text(corpus / name, name)
    write_text(tmp_path / "other/fr/b.jsonl", "b")
    (corpus / "fr").symlink_to(tmp_path / "other/fr")
    (corpus / "fr/up").symlink_to(corpus)
    (corpus / "en/again").symlink_to("../z")
    (corpus / "en/self").symlink_to(".")
    (corpus / "gone.jsonl").symlink_to("nothing")
    (corpus / "file.jsonl").symlink_to("en/a.jsonl")
    os.mkfifo(corpus / "pipe.jsonl")
    names, not_read = names_below(corpus)
    assert names == ["corpus/en/a.jsonl", "corpus/file.jsonl", "corpus/fr/b.jsonl", "corpus/z/c.jsonl"]
    assert set(not_read) == {
        *("corpus/en/again", "corpus/en/self", "corpus/fr/up", "corpus/gone.jsonl", "corpus/pipe.jsonl")
    }
    assert not_read["corpus/fr/up"] == "leads to a folder that is read already"
    assert not_read["corpus/gone.jsonl"] == "links to nothing"
    assert not_read["corpus/pipe.jsonl"] == "is a pipe, socket or device"


def test_links_that_double_at_each_level_are_read_once(tmp_path: Path) -> None:
    for level in range(40):
        write_text(tmp_path / f"{level}/{level}.jsonl", "x")
        for side in ("left", "right"):
            (tmp_path / f"{level}/{side}").symlink_to(f"../{level + 1}")
    assert len(parts_of([tmp_path / "0"]).parts) == 40


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "A.JSON"])
@pytest.mark.parametrize("array", [False, True])
def test_lines_or_one_array_by_content(tmp_path: Path, packed: str, name: str, array: bool) -> None:
    documents = [{"id": 1, "text": text, "meta": {"]": ["}", '"']}} for text in TEXTS]
    content = json.dumps(documents, indent=1) if array else LINES.decode()
    path = tmp_path / f"{name}{packed.upper() if name[0] == 'A' else packed}"
    path.write_bytes(PACKERS[packed](f" \n{content}\n".encode()))
    assert texts_of(path) == [(text,) for text in TEXTS]
    assert names_below(tmp_path)[0] == [f"{tmp_path.name}/{path.name}"]


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_an_array_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("data_tools.reading.files.json_array.CHARACTERS_READ_AT_ONCE", piece)
    documents = [{"text": text, "n": [-1.5e3, True, None, "\\u00e9\\"]} for text in TEXTS]
    for text in (json.dumps(documents), json.dumps(documents, ensure_ascii=False, indent=4) + "\n\n"):
        (tmp_path / "a.json").write_text("\ufeff" + text)
        assert texts_of(tmp_path / "a.json") == [(text,) for text in TEXTS]
    (tmp_path / "a.json").write_text(" [ ] ")
    assert texts_of(tmp_path / "a.json") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, 5]', "element 2: expected an object, found '5"),
        ('[{"text": "a"}] {"text": "b"}', "goes on behind its array"),
        ('[{"text": "a"}', "ends within its array, behind element 1"),
        ('[{"text": "a"}, {"te', "ends within element 2"),
        ('[{"text": "a"}, {"text": no}]' + " " * 100, "element 2 is not JSON"),
        ('[{"text": "a"}, {"body": "b"}]', "element 2: no key 'text'"),
        ("[" * 100_000, "element 1: expected an object"),
        ("[" + '{"a": ' * 100_000, "element 1 is nested too deeply"),
        ('[{"n": ' + "9" * 5000 + "}]", "element 1 is not JSON .*4300 digits"),
        ('[{"text": "\\ud800"}]', "half of a surrogate pair"),
        ("[", "ends within its array"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(TrainyardError, match=message) as caught:
        texts_of(tmp_path / "a.json")
    assert "a.json" in str(caught.value) and len(str(caught.value)) < 500


def test_a_description_beside_documents_is_left_out_and_named(tmp_path: Path) -> None:
    write_text(tmp_path / "c/a.json", "one")
    (tmp_path / "c/dataset_info.json").write_text('{\n "features": {"text": "string"}\n}\n')
    (tmp_path / "c/stats.json").write_text('{"documents": 1}')
    names, not_read = names_below(tmp_path / "c")
    assert names == ["c/a.json"]
    assert set(not_read) == {"c/dataset_info.json", "c/stats.json"}
    assert "no key 'text'" in not_read["c/stats.json"]
    with pytest.raises(TrainyardError, match="no key 'text', only documents"):
        texts_of(tmp_path / "c/stats.json")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt", ".jsonl.gz", ".jsonl.zst", ".jsonl.xz", ".json.bz2"])
def test_a_document_beyond_the_limit_is_no_damage(tmp_path: Path, suffix: str) -> None:
    """One letter 64 Mi times and more, packed a bomb: no more than the limit and what is read ahead is in memory."""
    size, most = (256 << 20, 176 << 20) if suffix.endswith(".zst") else (64 << 20, 48 << 20)
    packed = PACKERS["." + suffix.split(".")[2] if suffix.count(".") == 2 else ""]
    beginning = b'[{"text": "' if suffix.startswith(".json.") else b'{"text": "'
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(packed(beginning + b"x" * size))
    tracemalloc.start()
    try:
        with pytest.raises(TrainyardError, match=r"bomb.* is longer than 1 MiB, the limit .*--max-document-mib"):
            texts_of(path, largest=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_a_long_window_of_zstd_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=31)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(stream.compress(LINES) + stream.flush())
    assert texts_of(tmp_path / "a.jsonl.zst") == [(text,) for text in TEXTS]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.xz"])
def test_what_is_not_of_its_format_is_damaged(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"no archive at all, and long enough")
    with pytest.raises(Damaged, match=r"a\.jsonl.* is damaged \(.*\); copy it again"):
        texts_of(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "does not exist"),
        ("a.csv", "unknown format"),
        ("empty", "has no file with documents"),
        ("e.jsonl", "0 bytes"),
    ],
)
def test_unusable_sources(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "e.jsonl").touch()
    with pytest.raises(TrainyardError, match=message):
        parts_of([tmp_path / name])
