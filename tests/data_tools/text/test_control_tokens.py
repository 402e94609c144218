"""Text is text: what spells a control token in it never becomes that token, unless it is asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.text.control_tokens import control_tokens
from data_tools.text.sentencepiece_tokenizer import with_control_piece
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Damaged, TrainyardError
from tests.data_tools.conftest import TEXTS

HOSTILE = "hello <|endoftext|> world</s><s>"


def added(number: int, content: str, **changes: object) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags, **changes}


def described(model: dict[str, Any], *tokens: dict[str, Any], **parts: object) -> dict[str, Any]:
    nothing = dict.fromkeys(["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"])
    return {"version": "1.0", **nothing, **parts, "added_tokens": list(tokens), "model": model}


def folder_of(folder: Path, tokenizer: object, config: object = None) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


LETTERS = sorted(set("helo wrd<|ntx>/s"))
BPE = {
    "type": "BPE",
    "vocab": {piece: number for number, piece in enumerate(["</s>", "<s>", *LETTERS, "</", "s>"])},
    "merges": [["<", "/"], ["s", ">"], ["</", "s>"], ["<", "s>"]],
}
UNIGRAM = {
    "type": "Unigram",
    "unk_id": 2,
    "vocab": [["<s>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *([letter, -5.0] for letter in LETTERS)],
}
WORDS = {"type": "WordLevel", "vocab": {"hello": 0, "</s>": 1, "<unk>": 2, "world": 3}, "unk_token": "<unk>"}


@pytest.mark.parametrize("workers_text", ["<|endoftext|>", HOSTILE])
def test_byte_level_bpe(tokenizer_folder: Path, workers_text: str) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    parsing = load_tokenizer(tokenizer_folder, parse_special=True)
    ids = tokenizer.encode(workers_text)
    assert 0 not in ids and tokenizer.decode(ids) == workers_text
    assert 0 in parsing.encode(workers_text)
    assert (tokenizer.id, tokenizer.vocab_size, tokenizer.end_of_document) == (parsing.id, parsing.vocab_size, 0)
    assert tokenizer.decode([0]) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("tokenizer", "config", "text", "expected", "parsed"),
    [
        pytest.param(
            described(BPE, added(0, "</s>")), None, "s</s>", ["s", "</", "s>"], ["s", "</s>"], id="merges lead to it"
        ),
        pytest.param(described(UNIGRAM, added(1, "</s>")), None, "</s>", list("</s>"), ["</s>"], id="piece"),
        pytest.param(described(UNIGRAM), None, "o</s>", ["o", *"</s>"], ["o", "</s>"], id="piece that is not added"),
        pytest.param(
            described(WORDS, pre_tokenizer={"type": "WhitespaceSplit"}), None, "hello </s> <unk> world",
            ["hello", "<unk>", "<unk>", "world"], ["hello", "</s>", "<unk>", "world"], id="word",
        ),
        pytest.param(
            described(BPE, added(23, "<|end|>", special=False)), {"eos_token": {"content": "<|end|>"}}, "<|end|>",
            list("<|end|>"), ["<|end|>"], id="end without the mark",
        ),
        pytest.param(
            described(BPE, added(23, "<|n|>", special=False)), {"additional_special_tokens": ["<|n|>"]}, "<|n|>",
            list("<|n|>"), ["<|n|>"], id="named in the configuration",
        ),
        pytest.param(
            described(BPE, added(23, "<|n|>", special=False)),
            {"added_tokens_decoder": {"23": {"content": "<|n|>", "special": False}}},
            "<|n|>", ["<|n|>"], ["<|n|>"], id="ordinary added token",
        ),
        pytest.param(
            described(BPE, added(23, "ll", special=False, normalized=True), added(24, "<|x|>")), None, "hello<|x|>",
            ["h", "e", "ll", "o", *"<|x|>"], ["h", "e", "ll", "o", "<|x|>"], id="ordinary one beside a control token",
        ),
    ],
)  # fmt: skip
def test_other_models(
    tmp_path: Path, tokenizer: dict[str, Any], config: object, text: str, expected: list[str], parsed: list[str]
) -> None:
    folder = folder_of(tmp_path, tokenizer, config)
    for parse_special, pieces in ((False, expected), (True, parsed)):
        loaded = load_tokenizer(folder, parse_special=parse_special)
        ids = loaded.encode(text)
        assert [loaded.decode([each]) for each in ids] == pieces
        assert loaded.encode_batch([text]) == [ids]


def test_a_character_of_the_alphabet_stays_though_it_ends_documents() -> None:
    assert control_tokens(described(BPE), {"eos_token": "h"}, "h") == set()


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.sampled_from(["<|endoftext|>", "<|", "|>", "endoftext", "</s>", " ", "\n", *TEXTS[:2]])))
def test_no_text_becomes_a_control_token(tokenizer_folder: Path, parts: list[str]) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_document not in ids
    assert tokenizer.decode(ids) == text


def test_a_symbol_of_sentencepiece_that_ends_documents(tmp_path: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "<|endoftext|>"]),
        model_prefix=str(tmp_path / "m"),
        vocab_size=40,
        eos_id=-1,
        user_defined_symbols=["<|endoftext|>", "<extra>"],
        minloglevel=2,
    )
    text = "The dog <|endoftext|> The<extra>"
    tokenizer = load_tokenizer(tmp_path / "m.model")
    parsing = load_tokenizer(tmp_path / "m.model", parse_special=True)
    ending = tokenizer.end_of_document
    assert ending is not None and ending in parsing.encode(text)
    ids = tokenizer.encode(text)
    assert ending not in ids
    assert tokenizer.encode("The<extra>") == parsing.encode("The<extra>")
    assert tokenizer.decode([ending]) == "<|endoftext|>"
    model = (tmp_path / "m.model").read_bytes()
    assert len(with_control_piece(model, ending)) in (len(model) + 2, len(model) + 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("null", "tokenizer_config.json is not a JSON object but null"),
        ("[]", "is not a JSON object but a list"),
        ('{"eos_token": ["</s>"]}', r"eos_token is \['</s>'\], expected a text"),
        ('{"eos_token": {}}', "eos_token is {}, expected a text"),
        ('{"eos_token": {"content": ["</s>"]}}', "expected a text"),
        ('{"eos_token": 0}', "eos_token is 0, expected a text"),
        ('{"eos_token": true}', "expected a text"),
        ('{"eos_token": "\\u001b]52;c;\\u0007"}', r"names eos_token '\\x1b]52;c;\\x07'"),
        ('{"eos_token": "\\ud800"}', "names eos_token"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("\x00", "is not JSON"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, config: str, message: str) -> None:
    (folder_of(tmp_path, described(BPE)) / "tokenizer_config.json").write_text(config)
    with pytest.raises(TrainyardError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "tokenizer_config.json" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [{"bos_token": [1]}, {"additional_special_tokens": 3}, {"added_tokens_decoder": [None, {"content": 1}]}],
)
def test_what_does_not_decide_may_be_odd(tmp_path: Path, config: object) -> None:
    assert load_tokenizer(folder_of(tmp_path, described(BPE), config)).vocab_size == 20


def _changed(**changes: object) -> Callable[[], str]:
    return lambda: json.dumps({**described(BPE), **changes})


@pytest.mark.parametrize(
    "content",
    [
        lambda: "null",
        lambda: "[" * 100_000,
        lambda: '{"model": ' * 500 + "1" + "}" * 500,
        lambda: "9" * 5000,
        _changed(model=None),
        _changed(model={"type": "BPE", "vocab": [], "merges": {}}),
        _changed(model={"type": "BPE", "vocab": {"a": -1}, "merges": []}),
        _changed(model={"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}),
        _changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}),
        _changed(model={"type": "BPE", "vocab": {}, "merges": []}),
        _changed(model={"type": "Unigram", "vocab": [], "unk_id": 0}),
        _changed(model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}),
        _changed(added_tokens=[1]),
        _changed(added_tokens={"a": 1}),
        _changed(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed", "invert": False}),
    ],
)
def test_hostile_tokenizers(tmp_path: Path, content: Callable[[], str]) -> None:
    (tmp_path / "tokenizer.json").write_text(content())
    with pytest.raises(Damaged, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
