"""A tokenizer with more tokens: what it gave before, it gives still, and text makes none of the new ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_tools.records.tokenizer_template import read_template
from data_tools.text.tokenizer_extension import extend_tokenizer, read_tokens
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer, tokenizer_id
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from megatron_patches.errors import Damaged, TrainyardError
from tests.data_tools.conftest import TEXTS
from tests.data_tools.text.test_control_tokens import BPE, LETTERS, added, described, folder_of

NEW = ["<A>", "<B_2>", "[c]"]


def test_it_has_the_old_ids_and_the_new_ones_behind_them(tokenizer_folder: Path, tmp_path: Path) -> None:
    manifest = extend_tokenizer(tokenizer_folder, tmp_path / "new", NEW)
    old, new = load_tokenizer(tokenizer_folder), load_tokenizer(tmp_path / "new")
    assert (new.id, new.vocab_size, new.end_of_document) == (manifest.id, 303, 0)
    assert new.tokens() == {**old.tokens(), 300: "<A>", 301: "<B_2>", 302: "[c]"}
    assert [new.encode(text) for text in TEXTS] == [old.encode(text) for text in TEXTS]
    assert (manifest.kind, manifest.parents) == ("tokenizer", [old.id])
    assert manifest.facts["extends"] == {"id": old.id, "name": "bpe", "vocab_size": 300}
    assert (manifest.facts["added_tokens"], manifest.facts["first_added_id"]) == (NEW, 300)
    assert tokenizer_id(find_tokenizer(tmp_path / "new")) == manifest.id


def test_text_that_spells_them_stays_text_and_decoding_keeps_them(tokenizer_folder: Path, tmp_path: Path) -> None:
    extend_tokenizer(tokenizer_folder, tmp_path / "new", NEW)
    old, new = load_tokenizer(tokenizer_folder), load_tokenizer(tmp_path / "new")
    text = "an <A> and <B_2>[c]"
    assert new.encode(text) == old.encode(text) and new.encode_batch([text]) == [old.encode(text)]
    assert new.decode([300, *old.encode(" is "), 302]) == "<A> is [c]"
    library = library_of(tmp_path / "new")
    assert library.decode([0, 300], skip_special_tokens=True) == "<A>"  # others keep them, too


def library_of(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_first_id_may_be_chosen_and_ids_before_it_stand_for_nothing(tokenizer_folder: Path, tmp_path: Path) -> None:
    manifest = extend_tokenizer(tokenizer_folder, tmp_path / "new", NEW, first_id=304)
    new = load_tokenizer(tmp_path / "new")
    assert (new.vocab_size, manifest.facts["vocab_size"], manifest.facts["unused_ids"]) == (307, 307, 4)
    assert [new.tokens()[number] for number in (300, 303, 304, 306)] == ["<UNUSED_300>", "<UNUSED_303>", "<A>", "[c]"]
    assert max(new.encode("<UNUSED_300> <UNUSED_303>")) < 300
    library = library_of(tmp_path / "new")
    assert library.get_vocab_size(with_added_tokens=True) == 307  # whatever reads the folder counts the same
    assert library.decode([300, 304], skip_special_tokens=True) == "<A>"
    assert "--first-id 304" in manifest.by.command


def test_an_extended_one_can_be_extended(tokenizer_folder: Path, tmp_path: Path) -> None:
    extend_tokenizer(tokenizer_folder, tmp_path / "one", ["<A>"], first_id=302)
    extend_tokenizer(tmp_path / "one", tmp_path / "two", ["<B>"])
    two = load_tokenizer(tmp_path / "two")
    assert two.vocab_size == 304 and max(two.encode("<A> <B>")) < 300 and two.decode([302, 303]) == "<A><B>"
    assert read_manifest(tmp_path / "two" / "manifest.json").parents == [load_tokenizer(tmp_path / "one").id]


def test_its_chat_template_goes_with_it(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer_folder, tmp_path / "old")
    (tmp_path / "old" / "chat_template.jinja").write_text("{{ 'é' }}", encoding="utf-8")
    (tmp_path / "old" / "special_tokens_map.json").write_text("{}")
    manifest = extend_tokenizer(tmp_path / "old", tmp_path / "new", NEW)
    assert read_template(tmp_path / "new").text == "{{ 'é' }}"
    assert {file.path for file in manifest.files} >= {"chat_template.jinja", "special_tokens_map.json"}
    (tmp_path / "old" / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(Damaged, match=r"chat_template\.jinja is not UTF-8"):
        extend_tokenizer(tmp_path / "old", tmp_path / "newer", NEW)
    assert not (tmp_path / "newer").exists()


def test_a_folder_without_a_manifest_and_what_transformers_reads(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    tokenizer = described(BPE, added(0, "</s>"))
    config = {"eos_token": "</s>", "added_tokens_decoder": {"0": {"content": "</s>", "special": True}}}
    folder_of(tmp_path / "old", tokenizer, config)
    first = len(LETTERS) + 4
    manifest = extend_tokenizer(tmp_path / "old", tmp_path / "new", ["<x>"])
    new = load_tokenizer(tmp_path / "new")
    assert (new.vocab_size, new.end_of_document, new.decode([first])) == (first + 1, 0, "<x>")
    assert manifest.parents == [load_tokenizer(tmp_path / "old").id]
    decoder = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert decoder["0"]["content"] == "</s>"
    assert (decoder[str(first)]["content"], decoder[str(first)]["special"]) == ("<x>", False)


@pytest.mark.parametrize(
    ("tokens", "first_id", "message"),
    [
        ([], None, "no tokens to add; name some with --add, --add-file or --multiplication"),
        (["<A>", ""], None, "token '' is empty or has white space"),
        (["<A >"], None, "'<A >' is empty or has white space"),
        (["<A>\u2003"], None, "has white space"),
        (["<A>", "<B>", "<A>"], None, "'<A>' is given twice"),
        (["<|endoftext|>"], None, r"'<\|endoftext\|>' exists already in tokenizer bpe"),
        (["e"], None, "'e' exists already"),
        (["<UNUSED_300>"], 301, "'<UNUSED_300>' exists already"),
        (["a" * 257], None, "is longer than 256 characters"),
        (["\x1b[2J"], None, r"token '\\x1b\[2J' is longer than 256 characters, or one of them is not printable"),
        (["\udcff"], None, "not printable"),
        (["<A>"], 299, "--first-id 299 is taken: tokenizer bpe has ids up to 299; give 300 or more"),
        (["<A>"], -1, "--first-id -1 is taken"),
        (["<A>"], 1 << 20, r"1,048,577 ids are more than 1,048,576"),
        (["éa"], None, "id 300 of token 'éa' decodes as '.*take another spelling, in ASCII"),
    ],
)  # fmt: skip
def test_what_cannot_be_added(
    tokens: list[str], first_id: int | None, message: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainyardError, match=message):
        extend_tokenizer(tokenizer_folder, tmp_path / "new", tokens, first_id)
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_would_end_documents(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folder_of(
        tmp_path / "old", described({**BPE, "vocab": {letter: n for n, letter in enumerate(LETTERS)}, "merges": []})
    )
    with pytest.raises(TrainyardError, match="documents would end with id 16, not None; leave out the token"):
        extend_tokenizer(tmp_path / "old", tmp_path / "new", ["</s>"])
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_vocabulary_with_holes(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    vocabulary = {letter: 2 * number for number, letter in enumerate(LETTERS)}
    folder_of(tmp_path / "old", described({**BPE, "vocab": vocabulary, "merges": []}))
    with pytest.raises(TrainyardError, match="gives added tokens other ids in old: its vocabulary has holes"):
        extend_tokenizer(tmp_path / "old", tmp_path / "new", ["<A>"])
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_cannot_be_extended(tokenizer_folder: Path, sentencepiece_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match="is a SentencePiece model, whose pieces are fixed when it is trained"):
        extend_tokenizer(sentencepiece_model, tmp_path / "new", NEW)
    (tmp_path / "there").mkdir()
    with pytest.raises(TrainyardError, match="there exists already; remove it, or choose another --output"):
        extend_tokenizer(tokenizer_folder, tmp_path / "there", NEW)
    with pytest.raises(TrainyardError, match=r"neither a folder nor a \.model file"):
        extend_tokenizer(tmp_path / "missing", tmp_path / "new", NEW)


def test_an_invalid_one_is_refused_unless_it_is_allowed(tokenizer_folder: Path, tmp_path: Path) -> None:
    extend_tokenizer(tokenizer_folder, tmp_path / "one", ["<A>"])
    path = tmp_path / "one" / "manifest.json"
    status = Status(state="invalid", reason="wrong ids", date="2026-01-01T00:00:00+00:00")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    with pytest.raises(TrainyardError, match="wrong ids"):
        extend_tokenizer(tmp_path / "one", tmp_path / "two", ["<B>"])
    assert extend_tokenizer(tmp_path / "one", tmp_path / "two", ["<B>"], allow_invalid=True).facts["vocab_size"] == 302


@pytest.mark.parametrize("given", [["<A>", 3], "<A>", ["<A>", "<none>"], {"<A>": 1}, 3, [["<A>"]]])
def test_a_list_of_tokens_that_was_damaged(tokenizer_folder: Path, tmp_path: Path, given: object) -> None:
    extend_tokenizer(tokenizer_folder, tmp_path / "new", ["<A>"])
    (tmp_path / "new" / "manifest.json").unlink()
    path = tmp_path / "new" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trainyard_as_ids_alone": given}))
    with pytest.raises(Damaged, match=r"trainyard_as_ids_alone has .*, expected tokens of the vocabulary"):
        load_tokenizer(tmp_path / "new")


def test_tokens_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(b"\xef\xbb\xbf<A>\r\n<B>\r\n")
    assert read_tokens(path) == ["<A>", "<B>"]
    for content, message in (
        (b"<A>\n\n<B>\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
        (b"<A>\n\xff\n", "is not UTF-8"),
        (b"x" * ((16 << 20) + 1), "at most 16,777,216 are read"),
    ):
        path.write_bytes(content)
        with pytest.raises(TrainyardError, match=message):
            read_tokens(path)
    with pytest.raises(TrainyardError, match="does not exist"):
        read_tokens(tmp_path / "none")
