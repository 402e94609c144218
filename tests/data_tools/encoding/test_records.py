"""Records, and texts with tokens put in as ids: the same whichever library encodes."""

import json
from pathlib import Path

import pytest

from data_tools.domain_tokens.injection import injection_with
from data_tools.domain_tokens.multiplication import multiplication_tokens
from data_tools.encoding import block_encoder
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block
from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import RecordForm
from data_tools.text.tokenizer_extension import extend_tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError
from tests.data_tools.encoding.conftest import cut
from tests.data_tools.encoding.test_equality import of_each

TEMPLATE = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"


def chats(count: int) -> Block:
    given = [
        [
            {"role": "user", "content": f"what is {number} <|endoftext|>?"},
            {"role": "assistant", "content": f"{number} \u4e2d"},
        ]
        for number in range(count)
    ]
    content = "".join(json.dumps({"messages": each}) + "\n" for each in given) + '{"messages": 1}\n'
    return Block("lines", content.encode(), "chats.jsonl", "line", 1, count + 1, {}, len(content))


@pytest.mark.slow
@pytest.mark.parametrize("template", ["plain", "tokenizer"])
def test_records(tokenizer_folder: Path, tmp_path: Path, template: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    form = RecordForm("chat", ("messages",), template)  # type: ignore[arg-type]
    encoding = RecordEncoding.of(form, tmp_path, append_eod=False)
    results = []
    for library in ("gigatoken", "tokenizers"):
        with EncodingPool(Recipe(tmp_path, records=encoding, library=library), 2) as pool:
            assert pool.proof.library == library
            ((_, result),) = pool.encode([chats(150)])
        compared = result.compared
        results.append(result.texts[0])
        assert [each.number for each in result.bad] == [151]
        assert compared.documents == len(compared.hashes) == (100 if library == "gigatoken" else 0)
    fast, reference = results
    for mine, other in zip(fast[:4], reference[:4], strict=True):
        assert mine.tolist() == other.tolist()  # type: ignore[union-attr]
    assert fast.documents == 150


@pytest.mark.slow
def test_tokens_put_in_as_ids(tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "extended"
    extend_tokenizer(tokenizer_folder, folder, multiplication_tokens(), 300)
    injection = injection_with(load_tokenizer(folder), "weak")
    texts = [f"is {number % 10} * 7 = {number % 10 * 7} now <MUL_3_4>?" for number in range(150)]
    results = []
    for library in ("gigatoken", "tokenizers"):
        recipe = Recipe(folder, append_eod=True, encoder=injection, library=library)
        with EncodingPool(recipe, 2) as pool:
            results.append([encoded.texts[0] for _, encoded in pool.encode(cut(texts, 40))])
            assert pool.proof.documents == (100 if library == "gigatoken" else 0)
    fast, reference = results
    assert [of_each(each) for each in fast] == [of_each(each) for each in reference]
    assert [each.notes for each in fast] == [each.notes for each in reference]


def test_records_are_not_cut(tokenizer_folder: Path) -> None:
    form = RecordForm("chat", ("messages",), "plain")
    encoding = RecordEncoding.of(form, tokenizer_folder, append_eod=False)
    with pytest.raises(TrainyardError, match="would cut answers off"):
        Recipe(tokenizer_folder, records=encoding, max_length=9)


def test_a_record_of_other_ids_is_named(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = RecordForm("chat", ("messages",), "plain")
    encoding = RecordEncoding.of(form, tokenizer_folder, append_eod=False)
    encoder = EncodingPool(Recipe(tokenizer_folder, records=encoding), 1)._encoder
    given = block_encoder.same_ids
    monkeypatch.setattr(
        block_encoder, "same_ids",
        lambda ids, expected, place: given(ids[1:] if place.number == 7 else ids, expected, place),
    )  # fmt: skip
    with pytest.raises(DifferentIds, match=r"^chats\.jsonl, line 7: gigatoken gives "):
        encoder.encode(chats(20), by_reference=False)
