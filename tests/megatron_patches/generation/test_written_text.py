"""Text of ids that come one by one: whole characters, stop strings across tokens, nothing lost."""

import random
from pathlib import Path

import pytest

from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Refused
from megatron_patches.generation.written_text import WrittenText
from tests.small_training import SmallData

TEXTS = ["a b\tc\n\n d", "漢字 und Häuser 🏡👩\u200d🚀 ende", " leading", "\ufffd a real one", "abc" * 9]


@pytest.fixture(params=["bytes", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, small_data: SmallData, tmp_path: Path) -> Tokenizer:
    if request.param == "bytes":
        return load_tokenizer(small_data.folder / "tokenizer")
    from sentencepiece import SentencePieceTrainer

    sentences = [" ".join(random.Random(seed).choices(["abc", "de", "f"], k=9)) for seed in range(50)]
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(tmp_path / "small"), vocab_size=280, byte_fallback=True,
        model_type="bpe", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return load_tokenizer(tmp_path / "small.model")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_pieces_make_the_text_that_all_ids_are_decoded_to(tokenizer: Tokenizer, text: str, cut: int) -> None:
    ids = tokenizer.encode(text)
    prompt, rest = ids[:cut], ids[cut:]
    while "\ufffd" in tokenizer.decode(prompt) and "\ufffd" not in text:  # no prompt of text ends within a character
        prompt, rest = [*prompt, rest[0]], rest[1:]
    written, shown = WrittenText(tokenizer, prompt), []
    for chosen in rest:
        written.add(chosen)
        shown.append(written.news())
        assert "\ufffd" not in shown[-1] or "\ufffd" in text
    shown.append(written.news(is_over=True))
    assert "".join(shown) == written.text
    assert tokenizer.decode(prompt) + written.text == tokenizer.decode(ids)
    assert written.news(is_over=True) == "" and not written.stopped


def test_bytes_that_are_no_text_are_shown_at_the_end(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("x🏡")[:-1]
    written = WrittenText(tokenizer, [])
    for chosen in half:
        written.add(chosen)
    assert written.news() == "x"
    assert set(written.news(is_over=True)) == {"\ufffd"}


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["\n\n"], "ab cab"), (["never"], None), (["cab\n"], "ab "), (["b c", "cab"], "a"), (["d", "b\n\nd"], "ab ca"),
        (["🏡"], "ab cab\n\nd "), (["ab"], ""), (["e", "\n\nd 🏡 "], "ab cab"),
    ],
)  # fmt: skip
def test_a_stop_string_ends_the_text_before_it(small_data: SmallData, stops: list[str], expected: str | None) -> None:
    """The text is cut into tokens in two ways."""
    tokenizer = load_tokenizer(small_data.folder / "tokenizer")
    text = "ab cab\n\nd 🏡 e"
    if expected is None:
        expected = text
    in_pieces = [each for letter in text for each in tokenizer.encode(letter)]
    for ids in (tokenizer.encode(text), in_pieces):
        written, shown = WrittenText(tokenizer, tokenizer.encode("a"), stops), ""
        for chosen in ids:
            written.add(chosen)
            shown += written.news()
            assert expected.startswith(shown), "shown, and to be taken back"
        assert shown + written.news(is_over=True) == written.text == expected
        assert written.stopped == (expected != text)


@pytest.mark.parametrize(("stops", "why"), [(["a", ""], "empty"), (["\udcff"], "not UTF-8")])
def test_stop_strings_that_no_text_could_hold_are_refused(stops: list[str], why: str) -> None:
    from megatron_patches.generation.continuation import Wanted
    from megatron_patches.generation.sampling import Sampling

    with pytest.raises(Refused, match=why):
        Wanted(3, Sampling(), stops=stops)
    with pytest.raises(Refused, match="give 1 or more"):
        Wanted(0, Sampling())
    with pytest.raises(Refused, match="seed 18446744073709551616: give a number from 0"):
        Wanted(1, Sampling(), seed=2**64)
