import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.plans.characters import CharacterCounts, CharacterTable, count_characters
from data_tools.plans.extents import Stretches
from data_tools.plans.sums import sums
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizer_training import train_bpe
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Damaged

MakeDataset = Callable[..., Path]

LATIN = ["The QUICK brown fox (aged 7) jumps: over, under -- and away!", "Füße, naïve Çédille; ÆØÅ... “quoted” ½²"]
CJK = ["漢字とかな、カタカナ。「引用」！", "中文文本，没有空格。２０２４年"]
EMOJI = ["👍🏽 ok 👨‍👩‍👧 yes!! 🏳️‍🌈", "\u0301a\u200b😀😀😀"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: Path) -> dict[str, Path]:
    """A byte-level BPE that joins some characters of these texts, and a SentencePiece model with bytes."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("characters")
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*LATIN, *CJK, *EMOJI] * 3))
    train_bpe([folder / "a.jsonl"], folder / "bpe", 330)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LATIN * 20), model_prefix=str(folder / "bytes"), vocab_size=360,
        byte_fallback=True, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return {"bpe": folder / "bpe", "bytes": folder / "bytes.model", "unknown": sentencepiece_model}


def counts_of(tokenizer: Path, dataset: IndexedDataset) -> CharacterCounts:
    return CharacterCounts(CharacterTable(tokenizer), dataset.tokens, dataset.bin_path)


def counted_exactly(text: str, cuts: list[int]) -> list[int]:
    """From the text itself; a character in which a token ends is a letter."""
    ends, at = set(cuts), 0
    found = np.zeros(4, dtype=int)
    for character in text:
        size = len(character.encode())
        split = any(end in ends for end in range(at + 1, at + size))
        found += [
            1,
            not split and unicodedata.category(character)[0] == "P",
            not split and not character.isalnum(),
            not split and character.isupper(),
        ]
        at += size
    return found.tolist()


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
@pytest.mark.parametrize("texts", [LATIN, CJK, EMOJI], ids=["Latin", "CJK", "emoji"])
def test_sums_over_tokens_are_what_the_text_has(
    kind: str, texts: list[str], tokenizers: dict[str, Path], make_dataset: MakeDataset
) -> None:
    tokenizer = load_tokenizer(tokenizers[kind])
    encoded = [tokenizer.encode(text) for text in texts]
    dataset = IndexedDataset(make_dataset(encoded))
    lengths = np.array([len(tokens) for tokens in encoded])
    counts = counts_of(tokenizers[kind], dataset).of(Stretches(np.cumsum(lengths) - lengths, lengths))
    assert counts.dtype == np.int64
    for number, tokens in enumerate(encoded):
        spelled = [tokenizer.token_bytes()[token] for token in tokens]
        text = b"".join(spelled).decode()
        assert text.removeprefix(" ") == tokenizer.decode(tokens).removeprefix(" ")
        assert counts[:, number].tolist() == counted_exactly(text, np.cumsum([len(each) for each in spelled]).tolist())


def test_words_are_not_split(tokenizers: dict[str, Path], make_dataset: MakeDataset) -> None:
    """Of ASCII nothing is: the counts are those of the text, whatever the tokens."""
    text = LATIN[0]
    tokens = load_tokenizer(tokenizers["bpe"]).encode(text)
    dataset = IndexedDataset(make_dataset([tokens]))
    found = counts_of(tokenizers["bpe"], dataset).of(Stretches(np.array([0]), np.array([len(tokens)])))
    assert found[:, 0].tolist() == [len(text), 7, text.count(" ") + 7, 6]


def test_control_tokens_are_no_text(tokenizers: dict[str, Path]) -> None:
    for path in tokenizers.values():
        tokenizer: Tokenizer = load_tokenizer(path)
        assert tokenizer.end_of_document is not None
        assert tokenizer.token_bytes()[tokenizer.end_of_document] == b""
        assert tokenizer.token_bytes().keys() == set(range(tokenizer.vocab_size))


def test_an_unknown_piece_is_what_the_library_writes(tokenizers: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(tokenizers["unknown"])
    (unknown,) = {token for token in tokenizer.encode("漢") if tokenizer.token_bytes()[token] != b" "}
    assert tokenizer.token_bytes()[unknown].decode() == tokenizer.decode([unknown])


@given(text=st.text(), at=st.integers(0, 100))
def test_characters_are_counted_once_wherever_they_are_split(text: str, at: int) -> None:
    content = text.encode(errors="ignore")
    whole = count_characters(content)
    before, after = count_characters(content[:at]), count_characters(content[at:])
    assert before[0] + after[0] == whole[0] == len(content.decode())
    assert all(0 <= w - a - b <= 1 for w, a, b in zip(whole[1:], before[1:], after[1:], strict=True))


def test_a_token_that_the_tokenizer_does_not_have(tokenizers: dict[str, Path], make_dataset: MakeDataset) -> None:
    dataset = IndexedDataset(make_dataset([[5, 400]]))
    with pytest.raises(Damaged, match=r"holds token 400, tokenizer .* has 330"):
        counts_of(tokenizers["bpe"], dataset).of(Stretches(np.array([0]), np.array([2])))


@given(
    data=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), max_size=12),
    at_once=st.integers(1, 50),
    seed=st.integers(0, 5),
)
def test_sums(data: list[tuple[int, int]], at_once: int, seed: int) -> None:
    """Stretches that overlap, touch or lie apart, read in pieces of any size."""
    table = np.random.default_rng(seed).integers(-5, 100, (2, 300))
    starts = np.cumsum([step for step, _ in data], dtype=np.int64)
    stretches = Stretches(starts, np.array([length for _, length in data], dtype=np.int64))

    def look(runs: Stretches) -> np.ndarray:
        assert (runs.starts[1:] > runs.ends[:-1]).all(), "each token is read once"
        return np.concatenate([table[:, a:b] for a, b in zip(runs.starts, runs.ends, strict=True)], axis=1)

    expected = [table[:, start : start + length].sum(axis=1) for start, (_, length) in zip(starts, data, strict=True)]
    assert sums(stretches, look, 2, at_once).T.tolist() == [each.tolist() for each in expected]
