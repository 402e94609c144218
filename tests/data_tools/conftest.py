"""A small tokenizer and small datasets for the tests of this folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.text.tokenizer_training import train_bpe

TEXTS = [
    f"The {animal} number {number} runs over the {place}.\n"
    for number, (animal, place) in enumerate(
        (animal, place)
        for animal in ("dog", "fox", "cat", "crow", "hare")
        for place in ("hill", "street", "bridge", "sea")
    )
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 300 ids."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    train_bpe([folder / "text.jsonl"], folder / "bpe", 300)
    return folder / "bpe"


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece unigram model of 39 pieces."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(folder / "small"), vocab_size=39, minloglevel=2
    )
    return folder / "small.model"


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[[Sequence[Sequence[int]], str], Path]:
    """Writes documents of token ids without a manifest, and gives the prefix."""

    def make(documents: Sequence[Sequence[int]], dtype: str = "u2") -> Path:
        prefix = tmp_path / "made"
        with IndexedDatasetWriter(prefix, dtype) as writer:
            for document in documents:
                writer.add_document(document)
        return prefix

    return make


@pytest.fixture
def text_dataset(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """TEXTS, tokenized with the small tokenizer, an end-of-document token behind each."""
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    preprocess(PreprocessRequest([source], tmp_path / "texts", tokenizer_folder, append_eod=True))
    return tmp_path / "texts"
