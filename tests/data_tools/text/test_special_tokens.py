"""Roles of tokens, of tokenizers such as published models have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_tools.text.special_tokens import role_problems, special_tokens
from tests.data_tools.conftest import TEXTS

BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MODERNBERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|endoftext|>")
NAMED_BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def folder_of(folder: Path, special: tuple[str, ...], model: str = "WordPiece", **files: Mapping[str, Any]) -> Path:
    """A tokenizer whose special tokens have the first ids; files are named without `.json`."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    vocabulary = {each: number for number, each in enumerate([*special, "a", "b", "##c", "[EXTRA]"])}
    kinds = {
        "WordPiece": lambda: models.WordPiece(vocab=vocabulary, unk_token=special[1]),
        "BPE": lambda: models.BPE(vocab=vocabulary, merges=[]),
    }
    library = Tokenizer(kinds[model]())
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.add_special_tokens([AddedToken(each, lstrip=each == "<mask>", special=True) for each in special])
    folder.mkdir(parents=True)
    library.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def roles_of(folder: Path) -> tuple[int | None, ...]:
    """mask, cls, sep, pad"""
    found = special_tokens(folder)
    return found.mask, found.cls, found.sep, found.pad


def test_bert(tmp_path: Path) -> None:
    found = special_tokens(folder_of(tmp_path / "bert", BERT, tokenizer_config=NAMED_BERT))
    assert (found.mask, found.cls, found.sep, found.pad) == (4, 2, 3, 0)
    assert found.special == frozenset(range(5)) and found.vocab_size == 9


def test_roberta(tmp_path: Path) -> None:
    """Its mask token takes spaces before it, and is an object with flags."""
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
    named = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": mask, "eos_token": "</s>"}
    found = special_tokens(folder_of(tmp_path / "roberta", ROBERTA, "BPE", tokenizer_config=named))
    assert (found.mask, found.cls, found.sep, found.pad) == (4, 0, 2, 1)
    assert found.end_of_document == found.sep


def test_modernbert(tmp_path: Path) -> None:
    """Its roles stand in special_tokens_map.json too, and a text may end in <|endoftext|>."""
    folder = folder_of(
        tmp_path / "modern",
        MODERNBERT,
        "BPE",
        tokenizer_config={"model_max_length": 8192},
        special_tokens_map=NAMED_BERT,
    )
    found = special_tokens(folder)
    assert (found.mask, found.cls, found.sep, found.pad, found.end_of_document) == (4, 2, 3, 0, 5)


def test_the_first_file_that_names_a_role_counts(tmp_path: Path) -> None:
    first, second = {"cls_token": "[MASK]"}, {**NAMED_BERT, "sep_token": "[CLS]"}
    assert roles_of(folder_of(tmp_path / "two", BERT, tokenizer_config=first, special_tokens_map=second)) == (
        4,
        4,
        2,
        0,
    )


def test_usual_names_where_no_file_names_a_role(tmp_path: Path) -> None:
    assert roles_of(folder_of(tmp_path / "bert", BERT)) == (4, 2, 3, 0)
    assert roles_of(folder_of(tmp_path / "roberta", ROBERTA, "BPE")) == (4, None, None, 1)
    ordinary = ("[PAD]", "[UNK]")
    assert roles_of(folder_of(tmp_path / "ordinary", ordinary)) == (None, None, None, 0)


def test_a_word_of_the_vocabulary_is_no_special_token_for_its_name(tmp_path: Path) -> None:
    """[MASK] among a model's own pieces may be what a text spells."""
    folder = folder_of(tmp_path / "none", ("[PAD]", "[UNK]"))
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["vocab"]["[MASK]"] = 6
    (folder / "tokenizer.json").write_text(json.dumps(described))
    assert special_tokens(folder).mask is None


def test_a_name_that_the_vocabulary_lacks_is_told(tmp_path: Path) -> None:
    named = {**NAMED_BERT, "mask_token": "<mask>"}
    found = special_tokens(folder_of(tmp_path / "wrong", BERT, tokenizer_config=named))
    assert found.mask is None and found.cls == 2
    (told,) = role_problems(
        "data/bert", found, {"objective masked_lm": ("mask",), "data.samples.wrapped": ("cls", "sep")}
    )
    assert told.startswith(
        "tokenizer data/bert has no mask token (its files name mask_token '<mask>', which its vocabulary does not "
        "have), and objective masked_lm needs it; name mask_token in its tokenizer_config.json"
    )


def test_what_is_missing_is_told_for_each_setting(tmp_path: Path) -> None:
    found = special_tokens(folder_of(tmp_path / "none", ("[PAD]", "[UNK]")))
    needed = {"objective masked_lm": ("mask",), "data.samples.wrapped": ("cls", "sep"), "nothing": ()}
    told = list(role_problems("data/none", found, needed))
    assert [each.partition(";")[0] for each in told] == [
        "tokenizer data/none has no mask token, and objective masked_lm needs it",
        "tokenizer data/none has no cls and no sep token, and data.samples.wrapped needs them",
    ]


@pytest.mark.parametrize("pad", [-1, 3])
def test_sentencepiece(pad: int, tmp_path: Path) -> None:
    """T5's model has a pad token and no mask; what lies beside a file that was named itself is not its own."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(tmp_path / "small"), vocab_size=39, minloglevel=2, pad_id=pad
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"cls_token": "<s>", "sep_token": "</s>"}))
    found = special_tokens(tmp_path / "small.model")
    there = None if pad < 0 else pad
    assert (found.mask, found.cls, found.sep, found.pad) == (None, None, None, there)
    assert found.special == frozenset({0, 1, 2, *([] if there is None else [there])})
    assert roles_of(tmp_path) == (None, 1, 2, there)
