"""What a run keeps of its text sources: facts of a launch, and places in checkpoints."""

import atexit
import gzip
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np
import pyarrow
import pyarrow.parquet
from hypothesis import example, given
from hypothesis import strategies as st

from data_tools.data_config import DataConfig
from data_tools.datasets.manifest import TokenizerFacts
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.opened_text import OpenedText
from data_tools.plans.samples_config import StreamConfig
from data_tools.reading.block import Block, Part
from data_tools.reading.entries import documents_of
from data_tools.reading.files.sources import parts_of
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.source import Sample
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.position import StreamPosition
from data_tools.streams.text_config import TextConfig
from data_tools.text.document_encoding import EncodedTexts
from data_tools.text_sources.facts import TextFacts, TextPreparation, TextRequest
from data_tools.text_sources.places import places_of, places_to_json
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.json_text import parse_object
from tests.data_tools.streams.fakes import settings_of
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_entries, odd_json

NewPlace = Callable[[], Place]
FACTS = TextFacts(
    tokenizer=TokenizerFacts(name="t", id="0" * 64, vocab_size=300, end_of_document=0),
    identity={"files": 1, "bytes": 100, "names": "abc"},
    files=1,
    size=100,
    reserved=[3, 0],
    held_out="raw-0123",
    held_out_told="the first 3 documents of its own",
    bytes_per_token=2.5,
)
KINDS = ("jsonl", "jsonl.gz", "parquet", "txt")
SETTINGS = settings_of({"name": "stream"}, shuffle_documents=4)
LINES = "".join(json.dumps({"text": f"{number} a"}) + "\n" for number in range(20))


@cache
def parts() -> list[Part]:
    """Files of each kind, of documents of three words."""
    folder = Path(mkdtemp())
    atexit.register(rmtree, folder)
    for kind in KINDS:
        path = folder / f"{kind[-2:]}.{kind}"
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": ["a b c"] * 20}), path, row_group_size=7)
        else:
            path.write_bytes(gzip.compress(LINES.encode()) if kind.endswith("gz") else LINES.encode())
    return list(parts_of([folder], ["text"]).parts)


def encode(blocks: Iterable[Block], by_reference: Collection[str] = ()) -> Iterator[tuple[Block, EncodedBlock]]:
    """A document is three tokens."""
    for block in blocks:
        found = documents_of(block, ["text"], 1 << 20, "key")
        count = len(found.texts[0])
        texts = EncodedTexts(np.arange(3 * count, dtype=np.int32), np.full(count, 3), np.empty(0, np.int64))
        yield block, EncodedBlock([texts], found.bad, found.text_bytes)


def opened(place: Place) -> tuple[Path, OpenedText]:
    """A text of a run, as a rank opens it, and the file of its facts."""
    config = DataConfig(tokenizer="t", sequence_length=8, text=TextConfig(path="raw"))
    (source,) = config.first_sources
    assert source.text is not None
    request = TextRequest(
        source.name, source.text, place.inside, place.inside / "t", "id", False, StreamConfig(name="stream"),
        SampleLengths(read=9, stride=8, positions=(("tokens", 8),), counted=8),
        TextPreparation(place.inside, 3), True,
    )  # fmt: skip
    return request.path, OpenedText(source, config, request, None)


def read_facts(text: OpenedText, folder: Path) -> None:
    """What ranks and plans ask of them."""
    json.dumps([text.identity, text.stream_id, text.tokens, text.told])
    assert len(text.told) < 1000 and text.told.isprintable()
    held_out = text.facts.held_out
    assert held_out is None or (folder / held_out).parent == folder


@cases(40)
@given(content=odd_json(FACTS.model_dump()))
@example(content=json.dumps({**FACTS.model_dump(), "held_out": "../../outside/victim"}).encode())
@example(content=json.dumps({**FACTS.model_dump(), "bytes_per_token": 5e-324}).encode())
@example(content=json.dumps({**FACTS.model_dump(), "size": 10**400}).encode())
def test_the_facts_of_a_text(new_place: NewPlace, content: bytes) -> None:
    place = new_place()
    path, text = opened(place)
    path.write_bytes(content)
    attempt(lambda: read_facts(text, place.inside))
    place.check()


@cases(15)
@given(put=odd_entries())
def test_what_stands_where_facts_are_expected(new_place: NewPlace, put: Callable[[Place, Path], None]) -> None:
    place = new_place()
    path, text = opened(place)
    put(place, path)
    assert isinstance(attempt(lambda: read_facts(text, place.inside)), TrainyardError)
    place.check()


@cache
def kept_place(first: int) -> StreamPosition:
    """A real one, in the second part."""
    cursor = StreamCursor(parts(), encode, SETTINGS)
    cursor.take(0, first)
    return cursor.position_for(first)


@cases(40)
@given(data=st.data(), first=st.integers(1, 30))
def test_a_place_in_a_text(data: st.DataObject, first: int) -> None:
    """It is refused, or samples are read from it that are whole."""
    content = data.draw(odd_json({"streams": places_to_json({"data": kept_place(first)})}))

    def read() -> list[Sample]:
        known = places_of(parse_object(content, "trainer.json").get("streams"))
        cursor = StreamCursor(parts(), encode, SETTINGS, known.values())
        return cursor.take(first, first + 3)

    found = attempt(read)
    assert isinstance(found, TrainyardError) or [len(each["tokens"]) for each in found] == [len(found[0]["tokens"])] * 3
