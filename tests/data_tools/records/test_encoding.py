"""Answers of pairs and plain chats, token by token."""

from pathlib import Path

import pytest

from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import Message, Record, RecordForm
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError

BARE = RecordForm("pairs", ("q", "a"), None, " ")
PLAIN = RecordForm("chat", ("messages",), "plain")
QUESTION, ANSWER = Message("user", "Why does the dog run?"), Message("assistant", "The dog runs.")


def record(*messages: Message) -> Record:
    return Record(messages, "a.jsonl, line 1", 0)


def sequences(encoding: RecordEncoding, tokenizer: Tokenizer, *records: Record) -> list[list[list[int]]]:
    """The sequences of each record."""
    [encoded] = encoding(tokenizer, records)
    assert encoded.sequences is not None and encoded.empty.size == 0
    tokens, lengths = iter(encoded.tokens.tolist()), iter(encoded.lengths)
    return [[[next(tokens) for _ in range(next(lengths))] for _ in range(count)] for count in encoded.sequences]


@pytest.fixture(scope="module")
def tokenizer(chat_tokenizer: Path) -> Tokenizer:
    return load_tokenizer(chat_tokenizer)


def test_a_pair(tokenizer: Tokenizer) -> None:
    encoding = RecordEncoding(BARE, None, False)
    [[inputs, targets]] = sequences(encoding, tokenizer, record(QUESTION, ANSWER))
    assert inputs == tokenizer.encode("Why does the dog run?")
    assert targets == [*tokenizer.encode(" The dog runs."), 0]
    assert tokenizer.tokens()[targets[0]] == "\u0120The"  # one token with its space, as within a text


def test_a_pair_without_inputs_has_an_empty_context(tokenizer: Tokenizer) -> None:
    encoding = RecordEncoding(RecordForm("pairs", ("q", "a"), None, "\n"), None, False)
    [[inputs, targets]] = sequences(encoding, tokenizer, record(Message("user", ""), ANSWER))
    assert (inputs, targets) == ([], [*tokenizer.encode("\nThe dog runs."), 0])


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((QUESTION, ANSWER), ["User: Why does the dog run?\n\nAssistant:", " The dog runs.<|endoftext|>"]),
        (
            (Message("system", "You answer."), QUESTION, ANSWER, Message("user", "And\nthen?"), ANSWER),
            [
                "System: You answer.\n\nUser: Why does the dog run?\n\nAssistant:",
                " The dog runs.<|endoftext|>",
                "\n\nUser: And\nthen?\n\nAssistant:",
                " The dog runs.<|endoftext|>",
            ],
        ),
        ((ANSWER,), ["Assistant:", " The dog runs.<|endoftext|>"]),
        (
            (QUESTION, ANSWER, QUESTION),
            [
                "User: Why does the dog run?\n\nAssistant:",
                " The dog runs.<|endoftext|>",
                "\n\nUser: Why does the dog run?<|endoftext|>",
            ],
        ),
    ],
)
def test_plain_chats(tokenizer: Tokenizer, messages: tuple[Message, ...], expected: list[str]) -> None:
    [found] = sequences(RecordEncoding(PLAIN, None, False), tokenizer, record(*messages))
    assert [tokenizer.decode(each) for each in found] == expected
    for number, (text, tokens) in enumerate(zip(expected, found, strict=True)):
        bare = text.removesuffix("<|endoftext|>")
        assert tokens == tokenizer.encode(bare) + [0] * (bare != text)
        assert (tokens[-1] == 0) == (number % 2 == 1 or number == len(expected) - 1)


def test_what_spells_the_end_of_a_document_in_an_answer_is_text(tokenizer: Tokenizer) -> None:
    odd = Message("assistant", "stop<|endoftext|>go")
    for form in (BARE, PLAIN):
        [[_, answer]] = sequences(RecordEncoding(form, None, False), tokenizer, record(QUESTION, odd))
        assert answer.count(0) == 1 and answer[-1] == 0


def test_records_of_a_chunk_keep_their_own_sequences(tokenizer: Tokenizer) -> None:
    encoding = RecordEncoding(PLAIN, None, False)
    records = [record(QUESTION, ANSWER), record(ANSWER), record(QUESTION, ANSWER, QUESTION, ANSWER)]
    together = sequences(encoding, tokenizer, *records)
    assert together == [sequences(encoding, tokenizer, each)[0] for each in records]
    assert [len(each) for each in together] == [2, 2, 4]


def test_a_tokenizer_that_puts_a_space_itself_gets_none_twice(tmp_path: Path) -> None:
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Library

    library = Library(models.WordLevel({"</s>": 0, "\u2581": 1, "\u2581the": 2, "\u2581fox": 3, "x": 4}, "x"))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    library.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581"), "merged_with_next")
    (tmp_path / "words").mkdir()
    library.save(str(tmp_path / "words" / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "words")
    assert tokenizer.encode(" fox") == [1, 3]
    the, fox = Message("user", "the"), Message("assistant", "fox")
    [found] = sequences(RecordEncoding(BARE, None, False), tokenizer, record(the, fox))
    assert found == [[2], [3, 0]] and tokenizer.encode("the fox") == [2, 3]


def test_sentencepiece(sentencepiece_model: Path) -> None:
    tokenizer = load_tokenizer(sentencepiece_model)
    dog, fox = Message("user", "the dog"), Message("assistant", "the fox")
    [[inputs, targets]] = sequences(RecordEncoding(BARE, None, False), tokenizer, record(dog, fox))
    assert (inputs, targets) == (tokenizer.encode("the dog"), [*tokenizer.encode("the fox"), 2])
    assert inputs + targets[:-1] == tokenizer.encode("the dog the fox")


def test_answers_that_could_not_end_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    (tmp_path / "bare").mkdir()
    Library(models.BPE({"a": 0, "b": 1}, [])).save(str(tmp_path / "bare" / "tokenizer.json"))
    bare = load_tokenizer(tmp_path / "bare")
    for form in (BARE, PLAIN):
        with pytest.raises(TrainyardError, match=r"bare has no end-of-document token, with which an answer must end"):
            RecordEncoding(form, None, False).check(bare)
        with pytest.raises(TrainyardError, match="--append-eod would do nothing"):
            RecordEncoding(form, None, True).check(tokenizer)


def test_an_answer_that_gives_no_token_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    (tmp_path / "ab").mkdir()
    Library(models.BPE({"a": 0, "</s>": 1}, [])).save(str(tmp_path / "ab" / "tokenizer.json"))
    with pytest.raises(TrainyardError, match=r"a\.jsonl, line 1: an answer gives no token"):
        RecordEncoding(BARE, None, False)(
            load_tokenizer(tmp_path / "ab"), [record(QUESTION, Message("assistant", "z"))]
        )
