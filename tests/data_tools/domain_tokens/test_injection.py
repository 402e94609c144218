"""Tokens of the multiplication table enter as ids, and all else of a text stays what it is."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.domain_tokens.expressions import Expression, find_expressions
from data_tools.domain_tokens.injection import injection_with
from data_tools.domain_tokens.multiplication import Mode, multiplication_tokens
from data_tools.domain_tokens.report import InjectionCounts, TextCounts, describe_injection
from data_tools.text.sentencepiece_tokenizer import SentencePieceTokenizer
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError
from tests.data_tools.domain_tokens.conftest import FIRST_ID

TOKENS = multiplication_tokens()
PRODUCTS = st.sampled_from(
    ["3*4", "4 × 3 = 12", "3 x 4 =12", "9*9=80", "7*8=56", "2 x 4 board", "<MUL_3_4_12>", "1*1 = "]
)
TEXTS = st.lists(st.one_of(st.text(max_size=8), PRODUCTS, st.sampled_from([" ", "  ", "\n", ", ", "("]))).map("".join)
MODES = st.sampled_from(["weak", "strict"])


def expressions(text: str, mode: Mode) -> list[Expression]:
    return [found for found in find_expressions(text, mode) if isinstance(found, Expression)]


def injected(tokenizer: Tokenizer, text: str, mode: Mode = "weak") -> list[int]:
    documents, _ = injection_with(tokenizer, mode).encode(tokenizer, [text])
    return documents[0]


def identity(token: str) -> int:
    return FIRST_ID + TOKENS.index(token)


def test_white_space_around_a_token_stays_and_is_encoded_without_it(extended: Tokenizer, plain: Tokenizer) -> None:
    token = identity("<MUL_3_4_12>")
    assert injected(extended, "is 3*4 now") == [*plain.encode("is "), token, *plain.encode(" now")]
    assert plain.encode("is ")[-1] == plain.encode(" ")[0]  # the space is an id of its own
    assert injected(extended, "4 × 3 = 12") == [token]
    assert injected(extended, "3*4\n4*3") == [token, *plain.encode("\n"), token]
    assert injected(extended, "") == []


def test_a_token_is_spelled_in_text_and_stays_text(extended: Tokenizer, plain: Tokenizer) -> None:
    text = "the literal <MUL_3_4_12> and <UNUSED_305>, <MUL_9_9_81>3*4"
    ids = injected(extended, text)
    assert [number for number in ids if number >= 300] == [identity("<MUL_3_4_12>")]
    assert ids[-1] == identity("<MUL_3_4_12>") and ids[:-1] == plain.encode(text[:-3])
    assert extended.decode(ids) == text[:-3] + "<MUL_3_4_12>"


def test_even_where_control_tokens_are_parsed(extended_folder: Path) -> None:
    parsing = load_tokenizer(extended_folder, parse_special=True)
    ids = parsing.encode("<|endoftext|><MUL_3_4_12>")
    assert ids[0] == 0 and max(ids) < 300


@given(text=TEXTS, mode=MODES)
def test_decoded_it_is_the_text_with_tokens_for_expressions(extended: Tokenizer, text: str, mode: Mode) -> None:
    """Put back one by one, the expressions give the text again: nothing beside them is lost."""
    ids = injected(extended, text, mode)
    found = expressions(text, mode)
    assert [TOKENS[number - FIRST_ID] for number in ids if number >= FIRST_ID] == [each.token for each in found]
    runs: list[list[int]] = [[]]
    for number in ids:
        if number >= FIRST_ID:
            runs.append([])
        else:
            runs[-1].append(number)
    spelled = [text[each.start : each.end] for each in found]
    restored = "".join(extended.decode(run) + each for run, each in zip(runs, [*spelled, ""], strict=True))
    assert restored == text


@given(text=TEXTS, mode=MODES)
def test_text_without_expressions_has_the_ids_it_has_without_injection(
    extended: Tokenizer, plain: Tokenizer, text: str, mode: Mode
) -> None:
    bare = "".join(each for each in text if each not in "123456789")
    assert injected(extended, bare, mode) == plain.encode(bare) == extended.encode(bare)


def test_what_is_counted(extended: Tokenizer) -> None:
    texts = ["3*4, 4*3 = 12 and 3 x 4 = 12", "", "3*4 = 13 <MUL_3_4_12> <MUL_1_1>", "2*2"]
    _, counts = injection_with(extended, "weak").encode(extended, texts)
    assert counts == [
        TextCounts(("<MUL_3_4_12>",), ("<MUL_3_4_12>", "<MUL_3_4_12>")),
        TextCounts(),
        TextCounts(left_alone=1, literal=1),
        TextCounts(("<MUL_2_2_4>",)),
    ]
    together = InjectionCounts()
    of_documents = [together.add([each]) for each in counts * 2]
    facts = together.facts("weak", np.array(of_documents, dtype=np.int32))
    assert of_documents == [3, 0, 0, 1] * 2
    assert (facts.tenths, facts.documents, facts.injected) == ([0, 3, 0, 0, 1, 0, 3, 0, 0, 1], 4, 8)
    assert (facts.bare["<MUL_3_4_12>"], facts.with_product, facts.left_alone) == (2, {"<MUL_3_4_12>": 4}, 2)
    told = dict(describe_injection(facts))
    assert told["injected"] == "8 tokens in 4 documents (weak): 4 bare, 4 with the product"
    assert told["most frequent"] == "<MUL_3_4_12> 6, <MUL_2_2_4> 2"


@given(st.lists(st.integers(min_value=0, max_value=9), max_size=35))
def test_every_document_falls_into_one_tenth(counts: list[int]) -> None:
    facts = InjectionCounts().facts("strict", np.array(counts, dtype=np.int32))
    assert (sum(facts.tenths), facts.documents) == (sum(counts), len(counts) - counts.count(0))


def test_a_tokenizer_without_the_tokens_is_refused(plain: Tokenizer, sentencepiece_model: Path) -> None:
    for tokenizer in (plain, load_tokenizer(sentencepiece_model)):
        with pytest.raises(
            TrainyardError, match=r"lacks 45 of the 45 tokens .* tools/tokenizer extend TOKENIZER --output"
        ):
            injection_with(tokenizer, "weak")
    assert isinstance(load_tokenizer(sentencepiece_model), SentencePieceTokenizer)


def test_one_that_finds_the_tokens_in_text_is_refused(extended_folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((extended_folder / name).read_text())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["trainyard_as_ids_alone"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(
        TrainyardError, match=r"finds <MUL_1_1_1> in text that spells it, so documents could name tokens"
    ):
        injection_with(load_tokenizer(tmp_path), "weak")


def test_one_that_begins_each_text_with_a_space_is_refused(extended_folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((extended_folder / name).read_text())
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(TrainyardError, match=r"does not give 'is ' back between two tokens.*without add_prefix_space"):
        injection_with(load_tokenizer(tmp_path), "weak")
