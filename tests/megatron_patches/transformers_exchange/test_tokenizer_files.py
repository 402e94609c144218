"""The tokenizer of an export gives the run's ids, whichever kind it is, and one that would not is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizer_extension import extend_tokenizer
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer
from megatron_patches.errors import Damaged, Refused
from megatron_patches.transformers_exchange.model_description import token_ids
from megatron_patches.transformers_exchange.tokenizer_files import (
    compare_tokenizers,
    exported_tokenizer,
    write_tokenizer_files,
)

TEXT = Path(__file__).parents[3] / "CONTRIBUTING.md"
SPECIAL = ["<|endoftext|>", "<pad>"]
TEMPLATE = "{% for each in messages %}{{ each.content }}{{ eos_token }}{% endfor %}"


def _save(folder: Path, library: Any, config: Mapping[str, Any] | None) -> Path:
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def byte_level(folder: Path, prefix: bool = False) -> Path:
    """As GPT-2's, with settings that cut and pad and a class that would build it anew."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library.train(
        [str(TEXT)],
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    library.enable_truncation(5)
    library.enable_padding(length=7)
    config = {
        "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": not prefix, "add_bos_token": True,
        "auto_map": {"a": "b"},
        "bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>"}, "pad_token": "<pad>",
        "chat_template": TEMPLATE,
    }  # fmt: skip
    return _save(folder, library, config)


def llama_like(folder: Path) -> Path:
    """Text begins with <s> where the library is asked; the chat template is a file."""
    from tokenizers import Tokenizer as Library
    from tokenizers import processors

    library = Library.from_file(str(byte_level(folder.with_name("plain")) / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    library.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing("<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]),
        ]
    )
    _save(folder, library, {"eos_token": "<|endoftext|>"})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def word_piece(folder: Path) -> Path:
    """As BERT's."""
    from tokenizers import BertWordPieceTokenizer

    library = BertWordPieceTokenizer(lowercase=True)
    library.train([str(TEXT)], vocab_size=300, show_progress=False)
    return _save(folder, library._tokenizer, None)


def extended(folder: Path) -> Path:
    """Tokens that only enter as ids."""
    extend_tokenizer(byte_level(folder.with_name("short")), folder, ["<MUL_1_2>", "<MUL_3_4>"])
    return folder


def sentence_piece(folder: Path, **settings: Any) -> Path:
    import sentencepiece

    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        input=str(TEXT), model_prefix=str(folder / "spiece"), minloglevel=2, hard_vocab_limit=False, **settings
    )
    (folder / "spiece.vocab").unlink()
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    "byte-level": byte_level,
    "byte-level with a space before texts": lambda folder: byte_level(folder, prefix=True),
    "a start token": llama_like,
    "WordPiece": word_piece,
    "extended": extended,
    "Unigram": lambda folder: sentence_piece(folder, model_type="unigram", vocab_size=300),
    "Unigram with symbols": lambda folder: sentence_piece(
        folder, model_type="unigram", vocab_size=300, user_defined_symbols=["<sep>", "ab"], pad_id=3
    ),
    "BPE of SentencePiece": lambda folder: sentence_piece(
        folder, model_type="bpe", vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True,
    ),
    "without the space before texts": lambda folder: sentence_piece(
        folder, model_type="bpe", vocab_size=300, add_dummy_prefix=False
    ),
}  # fmt: skip


def export(source: Path, folder: Path, model_type: str = "gpt2", vocabulary: int | None = None) -> Tokenizer:
    """Writes the files of a tokenizer beside a configuration, compares them, and gives the run's own."""
    files, tokenizer = find_tokenizer(source), load_tokenizer(source)
    exported = exported_tokenizer(files, tokenizer, positions=64, vocabulary=vocabulary or tokenizer.vocab_size)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    write_tokenizer_files(exported, folder)
    compare_tokenizers(tokenizer, folder, np.array([[5, 6, 7], [8, 9, 10]]), exported.fixed)
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_the_ids_and_texts_of_the_runs(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = export(KINDS[kind](tmp_path / "tokenizer"), tmp_path / "export")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert theirs.eos_token_id == tokenizer.end_of_document
    assert theirs.model_max_length == 64
    control = {*theirs.all_special_tokens, *tokenizer.control_tokens}
    texts = [text for text in HARD_TEXTS if not any(token in text for token in control)]
    assert len(texts) > 30
    for text in texts:
        ids = tokenizer.encode(text)
        assert theirs(text, verbose=False)["input_ids"] == ids
        if tokenizer.tokens().get(0) != "<unk>":
            assert theirs.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("model_type", ["bloom", "llama", "gpt_neox"])
def test_the_model_does_not_decide_the_tokenizer(model_type: str, tmp_path: Path) -> None:
    export(byte_level(tmp_path / "tokenizer"), tmp_path / "export", model_type)


def test_what_runs_or_rebuilds_is_left_out_and_what_the_bytes_say_stays(tmp_path: Path) -> None:
    source = llama_like(tmp_path / "tokenizer")
    export(source, tmp_path / "first")
    written = json.loads((tmp_path / "first" / "tokenizer.json").read_text())
    assert [each["type"] for each in written["post_processor"]["processors"]] == ["ByteLevel"]
    export(tmp_path / "first", tmp_path / "second")
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("first", "second"))
    assert first == second
    export(tmp_path / "plain", tmp_path / "third")
    settings = json.loads((tmp_path / "third" / "tokenizer_config.json").read_text())
    assert settings.keys() == {
        "bos_token", "eos_token", "pad_token", "chat_template", "tokenizer_class", "clean_up_tokenization_spaces",
        "model_max_length", "padding_side",
    }  # fmt: skip


@pytest.mark.parametrize("made", [byte_level, llama_like])
def test_the_chat_template_goes_along(made: Callable[[Path], Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(made(tmp_path / "tokenizer"), tmp_path / "export")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert theirs.chat_template == TEMPLATE
    ids = theirs.apply_chat_template([{"role": "user", "content": "text"}], return_dict=False)
    assert ids[-1] == theirs.eos_token_id


def test_another_tokenizer_in_the_folder_is_refused(tmp_path: Path) -> None:
    tokenizer = export(byte_level(tmp_path / "tokenizer"), tmp_path / "export")
    path = tmp_path / "export" / "tokenizer.json"
    described = json.loads(path.read_text())
    described["model"]["merges"] = described["model"]["merges"][:-1]
    path.write_text(json.dumps(described))
    with pytest.raises(Refused, match=r"gives other ids than the run's: of '.*' token [\d,]+ is \d+ for \d+"):
        compare_tokenizers(tokenizer, tmp_path / "export", np.array([[tokenizer.vocab_size - 1]]))


def test_what_sentencepiece_alone_can_express_is_refused(tmp_path: Path) -> None:
    source = sentence_piece(tmp_path / "symbols", model_type="bpe", vocab_size=300, user_defined_symbols=["<sep>"])
    with pytest.raises(Refused, match="gives other ids than the run's: of 'a<sep>b"):
        export(source, tmp_path / "first")
    words = sentence_piece(tmp_path / "words", model_type="char", vocab_size=100)
    with pytest.raises(Refused, match="is a SentencePiece model of words or characters"):
        export(words, tmp_path / "second")


def test_ids_of_named_tokens(tmp_path: Path) -> None:
    source = byte_level(tmp_path / "tokenizer")
    files, tokenizer = find_tokenizer(source), load_tokenizer(source)
    ids = token_ids(exported_tokenizer(files, tokenizer, 8, tokenizer.vocab_size).settings, tokenizer)
    assert ids.as_json() == {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    named = {"eos_token": "<|endoftext|>", "mask_token": "<pad>", "cls_token": "<pad>"}
    assert token_ids(named, tokenizer).bos == 0, "a text begins after the end of another"
    assert token_ids(named, tokenizer).mask is None
    whole = token_ids(named, tokenizer, "fill-mask")
    assert whole.as_json() == {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": None, "mask_token_id": 1}


def test_texts_stand_between_tokens_where_the_run_put_them_there(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source = changed(tmp_path / "tokenizer", cls_token="<pad>", sep_token="<|endoftext|>")
    files, tokenizer = find_tokenizer(source), load_tokenizer(source)
    given = exported_tokenizer(files, tokenizer, 8, tokenizer.vocab_size, "fill-mask", wrapped=True)
    (tmp_path / "export").mkdir()
    write_tokenizer_files(given, tmp_path / "export")
    text = np.array([tokenizer.encode("some words to look at")])
    compare_tokenizers(tokenizer, tmp_path / "export", text, around=given.around)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert theirs("abc")["input_ids"] == [1, *tokenizer.encode("abc"), 0]
    assert theirs("abc", add_special_tokens=False)["input_ids"] == tokenizer.encode("abc")
    assert theirs.padding_side == "right"
    with pytest.raises(Refused, match="token 0 is 1 for"):
        compare_tokenizers(tokenizer, tmp_path / "export", text)
    without = changed(tmp_path / "other")
    with pytest.raises(Refused, match="names no cls_token and no sep_token that the model knows"):
        exported_tokenizer(find_tokenizer(without), load_tokenizer(without), 8, 300, "fill-mask", wrapped=True)


def changed(folder: Path, **settings: Any) -> Path:
    """The byte-level one with other settings; None takes one away."""
    path = byte_level(folder) / "tokenizer_config.json"
    given = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in given.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"pad_token": "<absent>", "unk_token": {"content": "<none>"}},
        {"additional_special_tokens": ["<absent>", {"content": "<none>"}, "<pad>"]},
        {"extra_special_tokens": {"image_token": "<absent>", "fill_token": "<pad>"}},
    ],
)
def test_tokens_without_an_id_are_left_out(settings: dict[str, Any], tmp_path: Path) -> None:
    """transformers would give them ids beyond the embedding."""
    from transformers import AutoTokenizer

    tokenizer = export(changed(tmp_path / "tokenizer", **settings), tmp_path / "export")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert len(theirs) == tokenizer.vocab_size
    assert set(theirs.all_special_tokens) <= {"<|endoftext|>", "<pad>"}


def test_roles_whose_ids_the_model_lacks_are_left_out(tmp_path: Path) -> None:
    tokenizer = export(byte_level(tmp_path / "tokenizer"), tmp_path / "first", vocabulary=1)
    settings = json.loads((tmp_path / "first" / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|endoftext|>"
    assert "pad_token" not in settings
    assert token_ids(settings, tokenizer).pad is None
    with pytest.raises(Refused, match="ends texts with id 1, and the model has those below 1"):
        export(changed(tmp_path / "other", eos_token="<pad>"), tmp_path / "second", vocabulary=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"additional_special_tokens": 5}, "additional_special_tokens is 5, expected a list of tokens"),
        ({"chat_template": 7}, "chat_template is 7, expected a text"),
    ],
)
def test_settings_that_transformers_would_fail_at_are_named(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Damaged, match=message):
        export(changed(tmp_path / "tokenizer", **settings), tmp_path / "export")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad_token": "<absent>"}, "has the token <absent> with id 400, and that of the run has not"),
        ({"extra_special_tokens": 5}, "transformers does not load the tokenizer of the export"),
    ],
)
def test_what_transformers_makes_of_the_settings_is_looked_at(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tokenizer = export(byte_level(tmp_path / "tokenizer"), tmp_path / "export")
    path = tmp_path / "export" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(Refused, match=message):
        compare_tokenizers(tokenizer, tmp_path / "export", np.array([[5]]))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_the_template_beside_a_sentencepiece_model_goes_along(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source = sentence_piece(tmp_path / "tokenizer", model_type="bpe", vocab_size=300)
    text = TEMPLATE if name.endswith(".jinja") else json.dumps({"chat_template": TEMPLATE, "eos_token": "<other>"})
    (source / name).write_text(text)
    export(source, tmp_path / "export")
    assert AutoTokenizer.from_pretrained(tmp_path / "export").chat_template == TEMPLATE


def test_texts_are_padded_where_a_model_does_not_go_on(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(byte_level(tmp_path / "tokenizer"), tmp_path / "export")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert theirs(["a", "a b c d"], padding=True)["attention_mask"][0][-1] == 1
