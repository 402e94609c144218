"""The shards in order hold the documents of the whole, in order, each once."""

import gzip
import hashlib
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.reading.block import Block, Part
from data_tools.reading.entries import documents_of
from data_tools.reading.files import lines_part
from data_tools.reading.files.shards import shard_of
from data_tools.reading.files.sources import parts_of
from megatron_patches.errors import TrainyardError
from tests.hostile.cases import TIMES


def texts_in(parts: list[Part]) -> list[str]:
    found: list[Block] = [block for part in parts for block in part.blocks()]
    return [text for block in found for text in documents_of(block, ["text"]).texts[0]]


def write(folder: Path, drawn: random.Random) -> None:
    for old in folder.iterdir():
        old.unlink()
    for number in range(drawn.randrange(1, 4)):
        texts = [f"{number}-{each} " + "x" * drawn.choice([0, 3, 50, 2000]) for each in range(drawn.randrange(1, 30))]
        end = drawn.choice(["\n", "\r\n", "\n\n", "\n \r\n"])
        content = end.join(json.dumps({"text": text}) for text in texts) + drawn.choice(["", end])
        form = drawn.choice(["jsonl", "jsonl", "jsonl", "gz", "parquet", "array", "txt"])
        path = folder / f"{number}.{form}"
        if form == "jsonl":
            path.write_text(drawn.choice(["", "\ufeff"]) + content, newline="", encoding="utf-8")
        elif form == "gz":
            path.with_name(f"{number}.jsonl.gz").write_bytes(gzip.compress(content.encode()))
        elif form == "parquet":
            size = drawn.choice([1, 3, 100])
            pyarrow.parquet.write_table(pyarrow.table({"id": texts, "text": texts}), path, row_group_size=size)
        elif form == "array":
            path.with_name(f"{number}.json").write_text(json.dumps([{"text": text} for text in texts]))
        else:
            path.write_text(drawn.choice(["", "a text"]))


@settings(max_examples=12 * TIMES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), shards=st.integers(1, 40))
def test_each_document_is_in_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, shards: int) -> None:
    monkeypatch.setattr(lines_part, "_LOOK_AHEAD_BYTES", 100)
    monkeypatch.setattr(lines_part, "BLOCK_BYTES", 300)
    write(tmp_path, random.Random(seed))
    parts: list[Part] = list(parts_of([tmp_path]).parts)
    found: list[list[Part]] = []
    for number in range(shards):
        try:
            found.append(shard_of(parts, number, shards))
        except TrainyardError as error:
            possible = int(str(error).rpartition("ask for ")[2].split()[0])
            assert f"shard {number} of {shards} is empty" in str(error) and possible < shards
            found.append([])
            assert all(shard_of(parts, each, possible) for each in range(possible))
    assert [text for shard in found for text in texts_in(shard)] == texts_in(parts)
    for shard in found:
        for part in shard:
            begin, end = part.stretch or (0, part.size)
            for _ in part.blocks(hashed=True):
                pass
            [path] = (tmp_path / part.name.partition("/")[2],)
            stored = path.read_bytes()[begin:end]
            assert part.content() == (len(stored), hashlib.sha256(stored).hexdigest()) and part.size == len(stored)


def test_a_cut_file_goes_on_from_any_place_and_names_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_part, "BLOCK_BYTES", 300)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{number:09}"}) + "\n" for number in range(100)))
    [part] = shard_of(parts_of([tmp_path / "a.jsonl"]).parts, 1, 3)
    assert part.stretch is not None and part.stretch[0] == 22 * 34 and part.stretch[1] == 22 * 67
    blocks = list(part.blocks())
    assert blocks[0].origin == f"{tmp_path}/a.jsonl from byte 748 on" and blocks[0].first == 1
    assert blocks[-1].source_bytes == part.size
    rest = list(part.blocks(blocks[1].position, hashed=True))
    assert b"".join(block.content for block in rest) == b"".join(block.content for block in blocks[2:])
    assert part.content().size == part.size


def test_shards_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
    parts = parts_of([tmp_path]).parts
    with pytest.raises(TrainyardError, match=r"shard \d+ of 20 is empty: .* ask for 3 shards"):
        [shard_of(parts, number, 20) for number in range(20)]
    for number in (-1, 3):
        with pytest.raises(TrainyardError, match="numbered from 0"):
            shard_of(parts, number, 3)
