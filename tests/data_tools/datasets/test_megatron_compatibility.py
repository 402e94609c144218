"""Against megatron-core itself: the only module here that imports it, because that takes seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronDataset

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import DTYPES
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.regrouping.merge import merge_datasets
from data_tools.datasets.regrouping.shards import Cut, split_dataset
from data_tools.datasets.split import split_documents
from data_tools.text.document_encoding import ids_type
from data_tools.text.tokenizers import load_tokenizer
from tests.data_tools.datasets.hand_written import (
    contents,
    quick_folder,
    some_documents,
    with_manifest,
    write_sequences,
)

DOCUMENTS = [[5, 6, 7], [], [1], list(range(100)), []]


@pytest.mark.parametrize("code", sorted(DTYPES))
def test_files_are_the_same_in_both_directions(tmp_path: Path, code: int) -> None:
    dtype = DType.dtype_from_code(code)
    with IndexedDatasetWriter(tmp_path / "ours", dtype) as writer:
        for document in DOCUMENTS:
            writer.add_document(document)
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype)
    for document in DOCUMENTS:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()

    theirs = MegatronDataset(str(tmp_path / "ours"))
    ours = IndexedDataset(tmp_path / "theirs")
    assert ours.dtype == np.dtype(dtype)
    for sequence, document in enumerate(DOCUMENTS):
        assert theirs[sequence].tolist() == document
        assert ours[sequence].tolist() == document
    assert theirs.document_indices.tolist() == ours.document_indices.tolist()


def test_documents_of_several_sequences(tmp_path: Path) -> None:
    builder = IndexedDatasetBuilder(str(tmp_path / "d.bin"), dtype=np.uint16)
    builder.add_document(torch.arange(5), [2, 3])
    builder.add_item(torch.arange(4))
    builder.end_document()
    builder.finalize(str(tmp_path / "d.idx"))
    dataset = IndexedDataset(tmp_path / "d")
    assert [sequence.tolist() for sequence in dataset] == [[0, 1], [2, 3, 4], [0, 1, 2, 3]]
    assert dataset.document_lengths(0, 2).tolist() == [5, 4]


def test_records_with_answers_are_the_same_in_both_directions(tmp_path: Path) -> None:
    records = [[[1, 2], [3]], [[], [4, 5], [6], [7, 8]], [[9]]]
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    with IndexedDatasetWriter(tmp_path / "ours", "u2") as writer:
        for record in records:
            tokens, lengths = [token for each in record for token in each], [len(each) for each in record]
            writer.add_documents(tokens, lengths, [len(record)])
            builder.add_document(torch.tensor(tokens), lengths)
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    theirs = MegatronDataset(str(tmp_path / "ours"))
    assert [theirs[number].tolist() for number in range(len(theirs))] == [each for record in records for each in record]
    assert theirs.document_indices.tolist() == [0, 2, 6, 7]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(st.lists(st.lists(st.integers(0, 65535), max_size=4), max_size=5), min_size=1, max_size=8))
def test_megatron_reads_documents_of_any_number_of_sequences(tmp_path: Path, records: list[list[list[int]]]) -> None:
    sequences = [sequence for record in records for sequence in record]
    with IndexedDatasetWriter(tmp_path / "d", "u2") as writer:
        writer.add_documents(
            [token for each in sequences for token in each], list(map(len, sequences)), list(map(len, records))
        )
    if any(sequences):
        theirs = MegatronDataset(str(tmp_path / "d"))
        assert [theirs[number].tolist() for number in range(len(theirs))] == sequences
        assert np.diff(theirs.document_indices).tolist() == list(map(len, records))


@pytest.mark.parametrize("append_eod", [False, True])
@pytest.mark.parametrize(
    "texts", [["", "one", "", "", "two two", ""], ["one", "two"]], ids=["some empty", "none empty"]
)
def test_texts_are_written_as_megatrons_preprocessing_writes_them(
    tmp_path: Path, tokenizer_folder: Path, texts: list[str], append_eod: bool
) -> None:
    """Its Encoder and its loop, of tools/preprocess_data.py: an empty text is a document of no sequence."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    preprocess(PreprocessRequest([tmp_path / "a.jsonl"], tmp_path / "ours", tokenizer_folder, append_eod=append_eod))
    tokenizer = load_tokenizer(tokenizer_folder)
    assert tokenizer.end_of_document is not None
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=DType.optimal_dtype(tokenizer.vocab_size))
    for text in texts:
        ids, lengths = list[int](), list[int]()
        if len(sentence := tokenizer.encode(text)) > 0:
            ids.extend(sentence)
            lengths.append(len(sentence))
        if len(ids) > 0 and append_eod:
            ids.append(tokenizer.end_of_document)
            lengths[-1] += 1
        builder.add_document(torch.tensor(ids), lengths)
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


@pytest.mark.parametrize("vocab_size", [256, 65499, 65500, 10**6])
def test_dtype_of_a_vocabulary(vocab_size: int) -> None:
    assert ids_type(vocab_size) == np.dtype(DType.optimal_dtype(vocab_size))


@pytest.mark.parametrize("split", ["949,50,1", "1,1,1", "0.98,0.02", "100", "0,1,1", "1,0,2", "900,90,10", "3,3,7"])
def test_splits_are_cut_at_the_same_documents(split: str) -> None:
    matrix = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))
    for documents in (0, 1, 2, 3, 5, 7, 19, 20, 999, 1000, 123457, 2**31 + 11):
        ours = split_documents(split, documents)
        for (first, last), bounds in zip(ours, matrix, strict=True):
            if bounds is None:
                assert first == last
            else:
                # As _build_megatron_dataset_splits rounds them.
                assert (first, last) == tuple(round(bound * float(documents)) for bound in bounds)


@settings(max_examples=40)
@given(documents=some_documents(), code=st.sampled_from(sorted(DTYPES)))
def test_any_documents_are_the_same_in_both_directions(documents: list[list[list[int]]], code: int) -> None:
    dtype = DType.dtype_from_code(code)
    with quick_folder() as place:
        builder = IndexedDatasetBuilder(str(place / "theirs.bin"), dtype=dtype)
        for document in documents:
            tokens = [token for sequence in document for token in sequence]
            builder.add_document(torch.tensor(tokens), [len(sequence) for sequence in document])
        builder.finalize(str(place / "theirs.idx"))
        assert contents(place / "theirs") == contents(write_sequences(place / "ours", documents, code))
        theirs = MegatronDataset(str(place / "ours"))
        sequences = [sequence for document in documents for sequence in document]
        assert [theirs[number].tolist() for number in range(len(theirs))] == sequences
        assert theirs.document_indices.tolist() == IndexedDataset(place / "ours").document_indices.tolist()


def test_what_merging_and_splitting_make_is_read_by_megatron(tmp_path: Path) -> None:
    documents = [[[1, 2], [3]], [], [[4], [], [5, 6]], [[7]]]
    prefix = with_manifest(tmp_path / "d", documents)
    shards = [each.prefix for each in split_dataset(prefix, tmp_path / "s", Cut("shards", 2))]
    merge_datasets([*shards, with_manifest(tmp_path / "wide", documents, 4)], tmp_path / "m")
    theirs = MegatronDataset(str(tmp_path / "m"))
    assert [theirs[number].tolist() for number in range(len(theirs))] == [each for one in documents * 2 for each in one]
    assert theirs.document_indices.tolist() == [0, 2, 2, 5, 6, 8, 8, 11, 12]
    assert theirs.index.dtype == np.int32
