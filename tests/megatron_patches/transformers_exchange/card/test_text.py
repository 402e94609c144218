"""What models are compared at: a file, a run's validation samples, or the checkout's own documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.run_data import RunData
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Missing, Refused
from megatron_patches.run.run_directory import text_preparation
from megatron_patches.transformers_exchange.card.text import card_text
from tests.small_training import SmallData


def test_the_validation_samples_of_a_run_come_first(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path)
    text = card_text(config, load_tokenizer(small_data.folder / "tokenizer"), None)
    length = config.lengths.of("tokens")
    assert text.ids.shape == (-(-512 // length), length)
    data = RunData(config.data, CHECKOUT, config.lengths, texts=text_preparation(config))
    first = data.groups[0].samples[0]["tokens"]
    assert text.ids.flatten()[: len(first)].tolist() == first.tolist()
    assert text.described.startswith("validation samples of the run")
    assert str(CHECKOUT) not in text.described and str(small_data.folder) not in text.described
    assert text.note is None


@pytest.mark.parametrize(("positions", "shape"), [(300, (2, 300)), (1024, (1, 1024)), (4096, (1, 2048))])
def test_samples_are_as_long_as_the_model_has_positions(
    small_data: SmallData, tmp_path: Path, positions: int, shape: tuple[int, int]
) -> None:
    config = small_data.run(tmp_path, [f"--data.sequence_length={positions}"])
    assert card_text(config, load_tokenizer(small_data.folder / "tokenizer"), None).ids.shape == shape


def test_a_given_file_comes_before_them(small_data: SmallData, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(small_data.folder / "tokenizer")
    (tmp_path / "text").write_text("äbc def " * 20_000, encoding="utf-8")
    text = card_text(small_data.run(tmp_path), tokenizer, tmp_path / "text")
    assert tokenizer.decode(text.ids.flatten().tolist()).startswith("äbc def äbc")
    assert text.described == "a file (--text)"
    assert text.sha256 != card_text(small_data.run(tmp_path), tokenizer, None).sha256


def test_documents_stand_in_where_the_data_is_elsewhere(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path, ["--data.path", f"{tmp_path}/elsewhere"])
    text = card_text(config, load_tokenizer(small_data.folder / "tokenizer"), None)
    assert text.described == "README.md and ARCHITECTURE.md of Trainyard"
    assert text.note is not None and "elsewhere" in text.note
    assert text.ids.size >= 512


def test_samples_with_tokens_that_the_model_lacks_are_not_taken(small_data: SmallData, tmp_path: Path) -> None:
    """As where a run's tokenizer has more tokens than that of the folder that it imports."""
    config = small_data.run(tmp_path, ["--model.vocab_size", "300"])
    text = card_text(config, load_tokenizer(small_data.folder / "tokenizer"), None)
    assert text.described == "README.md and ARCHITECTURE.md of Trainyard"
    assert text.note == "validation group validation has tokens beyond the model's 300"


def test_a_bad_file_is_refused(small_data: SmallData, tmp_path: Path) -> None:
    tokenizer, config = load_tokenizer(small_data.folder / "tokenizer"), small_data.run(tmp_path)
    with pytest.raises(Missing):
        card_text(config, tokenizer, tmp_path / "none")
    (tmp_path / "short").write_text("a b c")
    with pytest.raises(Refused, match=r"has \d tokens, and a card compares \d+; give a longer text"):
        card_text(config, tokenizer, tmp_path / "short")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 1000)
    with pytest.raises(Refused, match="not UTF-8 text"):
        card_text(config, tokenizer, tmp_path / "binary")


def test_the_hash_is_of_the_ids(small_data: SmallData, tmp_path: Path) -> None:
    import hashlib

    text = card_text(small_data.run(tmp_path), load_tokenizer(small_data.folder / "tokenizer"), None)
    assert text.sha256 == hashlib.sha256(text.ids.astype(np.dtype("<i8")).tobytes()).hexdigest()
