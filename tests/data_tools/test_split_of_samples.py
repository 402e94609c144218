"""However documents are split and cut, no sample of training holds a token of a document that is held out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.data_config import DataConfig
from data_tools.datasets.adoption import adopt_dataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths
from data_tools.source_parts import SourcePart

LENGTHS = SampleLengths(9, 8, (("tokens", 8),), 8)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """200 documents of 0 to 30 tokens; every fifth one occurs twice."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("split")
    documents = [draw.integers(0, 250, draw.integers(0, 31)) for _ in range(160)]
    documents += [documents[number] for number in range(0, 160, 4)]
    with IndexedDatasetWriter(folder / "d", np.uint16) as writer:
        for number in draw.permutation(len(documents)):
            writer.add_document(documents[number])
    adopt_dataset(folder / "d", tokenizer_folder)
    return folder / "d"


def tokens_of(part: SourcePart) -> set[int]:
    """Places in the file of all tokens that any sample has."""
    (piece,) = part.pieces
    stretches = (each for number in range(len(piece)) for each in piece.stretches(number))
    return {place for first, end in stretches for place in range(first, end)}


@given(
    by=st.sampled_from(["file_order", "document_hash"]),
    cut=st.sampled_from(
        [{"name": "stream"}, {"name": "windows", "overlap": 0.7}, {"name": "windows", "stride": 1}, {"name": "packs"}]
    ),
    shares=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 20)),
    range_=st.sampled_from(["0:1", "0.2:0.9", "0:0.5"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_share_no_document(
    prefix: Path, tokenizer_folder: Path, by: str, cut: dict[str, object], shares: tuple[int, ...], range_: str
) -> None:
    source = {"name": "s", "path": str(prefix), "range": range_}
    config = DataConfig.model_validate(
        {
            "sources": [source], "tokenizer": str(tokenizer_folder), "sequence_length": 8, "samples": cut,
            "split_by": by, "split": ",".join(map(str, shares)),
        }
    )  # fmt: skip
    (opened,) = RunData(config, Path("/nowhere"), LENGTHS).sources
    (shard,) = opened.shards
    documents = shard.dataset.number_of_documents
    starts = np.array([shard.dataset.document_token_offset(document) for document in range(documents + 1)])
    texts: list[set[bytes]] = []
    places: list[set[int]] = []
    for part in (opened.training, opened.validation):
        places.append(tokens_of(part))
        held = np.array(sorted(places[-1]), dtype=np.int64)
        read = np.unique(np.searchsorted(starts, held, side="right") - 1).tolist()
        chosen = np.concatenate([*part.selections[0].blocks(1000), np.empty(0, np.int64)])
        assert set(read) <= set(chosen.tolist())
        texts.append({shard.dataset.tokens[starts[each] : starts[each + 1]].tobytes() for each in read})
    assert not places[0] & places[1]
    if by == "document_hash":
        assert not texts[0] & texts[1], "copies of one document lie on one side"
