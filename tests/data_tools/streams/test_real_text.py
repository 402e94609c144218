"""Files of several formats through reader processes with encoding workers, resumed from another reading's place."""

import gzip
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block, Part
from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.entries import documents_of
from data_tools.reading.files.sources import parts_of
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.messages import StreamRequest
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader
from data_tools.streams.settings import Encode
from data_tools.text.document_encoding import EncodedTexts
from data_tools.text.tokenizers import load_tokenizer
from tests.data_tools.conftest import TEXTS
from tests.data_tools.streams.fakes import settings_of

pytestmark = pytest.mark.slow


@contextmanager
def pool_of(recipe: Recipe, workers: int) -> Iterator[Encode]:
    with EncodingPool(recipe, workers) as pool:
        yield pool.encode


def open_files(folder: Path) -> list[Part]:
    return list(parts_of([folder], ["text"]).parts)


def text_files(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    texts = [f"{text}{number}" for number in range(4) for text in TEXTS]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[:30]).encode()
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines[:500].rpartition(b"\n")[0] + b"\n") + gzip.compress(lines))
    pq.write_table(pa.table({"text": texts[30:]}), folder / "c.parquet", row_group_size=7)
    (folder / "d.txt").write_text("One text.\nOf two lines.\n")


def encode_here(
    tokenizer_folder: Path, blocks: Iterable[Block], by_reference: Collection[str] = ()
) -> Iterator[tuple[Block, EncodedBlock]]:
    """By the tokenizer itself, text by text."""
    tokenizer = load_tokenizer(tokenizer_folder)
    for block in blocks:
        texts = documents_of(block, ["text"], LARGEST_DOCUMENT).texts[0]
        ids = [[*tokenizer.encode(text), tokenizer.end_of_document or 0] for text in texts]
        flat = np.array([token for each in ids for token in each], dtype=np.int32)
        yield (
            block,
            EncodedBlock(
                [EncodedTexts(flat, np.array([len(each) for each in ids]), np.empty(0, dtype=np.int64))], [], 0
            ),
        )


def test_a_cursors_place_is_gone_on_from_by_a_process_with_workers(tmp_path: Path, tokenizer_folder: Path) -> None:
    text_files(tmp_path / "text")
    opened = partial(pool_of, Recipe(tokenizer_folder, append_eod=True))
    for kind, (workers, ahead) in {"stream": (2, 200), "packs": (3, 7)}.items():
        settings = settings_of(kind, read=16, shuffle_documents=20, seed=4)
        cursor = StreamCursor(open_files(tmp_path / "text"), partial(encode_here, tokenizer_folder), settings)
        expected = cursor.take(0, 700)
        request = StreamRequest(settings, partial(open_files, tmp_path / "text"), opened)
        saved = StreamPosition.model_validate_json(cursor.position_for(200).model_dump_json())
        assert 0 < saved.samples <= 200
        reader = StreamReader(request, saved, ahead, workers)
        try:
            for sample, right in zip(reader.take(200, 700), expected[200:], strict=True):
                assert all(np.array_equal(sample[name], right[name]) for name in right)
            position = reader.position_for(700)
            assert position.samples > 500 and position == cursor.position_for(700)
        finally:
            reader.close()
