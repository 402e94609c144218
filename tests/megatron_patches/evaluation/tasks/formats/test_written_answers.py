"""GSM8K, the same as a chat, arithmetic and perplexity: what is asked of whom."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import Message, Record, RecordForm
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.arithmetic import ARITHMETIC
from megatron_patches.evaluation.tasks.formats.gsm8k import GSM8K, GSM8K_CHAT
from megatron_patches.evaluation.tasks.formats.local_format import LocalFormat, Questions, Source
from megatron_patches.evaluation.tasks.formats.perplexity import PERPLEXITY
from tests.megatron_patches.evaluation.tasks.made_up import gsm8k_rows, lines

GOLDEN = "33ebcd4866204986c46a6491f2937be106af79444d96b4ecd9bcd4d71ea3bf69"
"""of all 281, as `random.seed(42)` in front of each kind draws them: texts of questions and their numbers"""


def questions(format: LocalFormat, path: Path | None = None, examples: Path | None = None) -> Questions:
    read = format.read(Source(path, examples)).questions
    assert isinstance(read, Questions)
    return read


def test_gsm8k_shows_whole_solutions_and_knows_their_numbers(tmp_path: Path) -> None:
    path = lines(tmp_path / "g.jsonl", gsm8k_rows())
    read = questions(GSM8K, path, path)
    assert read.documents[1] == {
        "query": "Question: Ann has 1 pens. How many?\nAnswer:",
        "answer": "She has <<1>>.\n#### 2000",
        "number": "2000",
    }
    assert read.examples == read.documents


def test_an_answer_without_its_number_is_refused(tmp_path: Path) -> None:
    rows = [*gsm8k_rows(1), {"question": "How many?", "answer": "The answer is 5"}]
    with pytest.raises(TrainyardError, match=r"line 2: 'answer' has no number after ####"):
        GSM8K.read(Source(lines(tmp_path / "g.jsonl", rows)))


class Letters:
    """A tokenizer whose tokens are characters, so that ids can be read."""

    name = "letters"
    vocab_size = 0x110000
    end_of_document = 0
    control_tokens: ClassVar[dict[str, int]] = {}

    def encode(self, text: str) -> list[int]:
        return [ord(each) for each in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def tokens(self) -> dict[int, str]:
        return {ord(each): each for each in "abc"}


def test_a_chat_is_asked_as_records_are_trained_on(tmp_path: Path) -> None:
    row = gsm8k_rows(1)[0]
    (asked,) = questions(GSM8K_CHAT, lines(tmp_path / "g.jsonl", [row])).documents
    record = Record((Message("user", row["question"]), Message("assistant", row["answer"])), "here", 0)
    encoding = RecordEncoding(RecordForm("chat", ("messages",), "plain"), None, False)
    (encoded,) = encoding(Letters(), [record])  # type: ignore[arg-type]
    context = int(encoded.lengths[0])
    assert asked["query"] == "".join(map(chr, encoded.tokens[:context]))
    assert asked["query"].endswith("\n\nAssistant:")
    assert GSM8K_CHAT.asked["generation_kwargs"]["until"] == ["User:"]


def test_there_are_281_questions_of_arithmetic() -> None:
    parts = ARITHMETIC.read(Source(None)).questions
    assert not isinstance(parts, Questions)
    found = {part: each.documents for part, each in parts.items()}
    assert {part: len(each) for part, each in found.items()} == {
        "mul_table": 81,
        "mul_multidigit": 100,
        "addition": 100,
    }
    assert found["mul_table"][0]["query"] == "User: What is 1 times 1?\nAssistant: The answer is"
    assert [found["mul_table"][place]["query"][6:25] for place in (1, 9)] == [
        "What is 1 times 2?\n",
        "What is 2 times 1?\n",
    ]
    assert [(each["query"].split("?")[0][14:], each["number"]) for each in found["mul_multidigit"][:3]] == [
        ("91 times 3", "273"), ("13 times 6", "78"), ("41 times 5", "205"),
    ]  # fmt: skip
    assert [(each["query"].split("?")[0][14:], each["number"]) for each in found["addition"][:3]] == [
        ("82 plus 15", "97"), ("4 plus 95", "99"), ("36 plus 32", "68"),
    ]  # fmt: skip
    assert {each["part"] for each in found["addition"]} == {"addition"}
    listed = [(each["query"][6:].split("\n")[0], int(each["number"])) for some in found.values() for each in some]
    assert hashlib.sha256(repr(listed).encode()).hexdigest() == GOLDEN, "the published questions are others"


def test_a_text_is_one_document_and_a_row_is_one(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    assert questions(PERPLEXITY, tmp_path / "p.txt").documents == [{"text": "one\n\ntwo\n"}]
    (data,) = PERPLEXITY.read(Source(tmp_path / "p.txt")).data
    assert (data.rows, data.sha256) == (1, hashlib.sha256(b"one\n\ntwo\n").hexdigest())
    path = lines(tmp_path / "p.jsonl", [{"text": "one"}, {"text": "two", "x": 1}])
    assert questions(PERPLEXITY, path).documents == [{"text": "one"}, {"text": "two"}]


def test_texts_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    path = lines(tmp_path / "p.jsonl", [{"text": "one"}, {"text": ""}])
    for source, error, message in (
        (tmp_path / "empty.txt", Damaged, "has no text"),
        (tmp_path / "latin.txt", TrainyardError, "is not UTF-8"),
        (path, TrainyardError, "line 2: 'text' is empty"),
        (tmp_path, Refused, "is a folder"),
    ):
        with pytest.raises(error, match=message):
            PERPLEXITY.read(Source(source))
