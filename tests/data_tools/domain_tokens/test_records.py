"""Tokens of the multiplication table in the contexts and answers of records."""

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.verification import verify_dataset
from data_tools.domain_tokens.multiplication import Mode
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.records.record import RecordForm
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest
from megatron_patches.errors import TrainyardError

Encode = Callable[..., list[list[str]]]
PAIRS = RecordForm("pairs", ("q", "a"), None, " ")
ASKED = RecordForm("pairs", ("q", "a"), "plain")
OWN = RecordForm("pairs", ("q", "a"), "tokenizer")
TEMPLATE = "{% for m in messages %}{{ m.content ~ eos_token }}{% endfor %}"
END, PRODUCT = "<|endoftext|>", "<MUL_3_4_12>"


@pytest.fixture
def folder(tmp_path: Path, extended_folder: Path) -> Path:
    """The extended tokenizer with a chat template, which may be changed."""
    shutil.copytree(extended_folder, tmp_path / "own")
    (tmp_path / "own" / MANIFEST).unlink()
    (tmp_path / "own" / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path / "own"


@pytest.fixture
def encode(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Encode:
    """Preprocesses pairs into tmp_path/data; the texts of the sequences of each."""
    monkeypatch.setattr("data_tools.reading.files.lines_part.BLOCK_BYTES", 128)

    def encoded(form: RecordForm, pairs: Sequence[tuple[str, str]], mode: Mode | None, **more: Any) -> list[list[str]]:
        source = tmp_path / "pairs.jsonl"
        source.write_text("".join(json.dumps({"q": question, "a": answer}) + "\n" for question, answer in pairs))
        asked = {"arithmetic": ArithmeticRequest(mode), "records": form, "overwrite": True, **more}
        preprocess(PreprocessRequest([source], tmp_path / "data", folder, **asked))
        dataset, tokenizer = IndexedDataset(tmp_path / "data"), load_tokenizer(folder)
        return [
            [
                tokenizer.decode(dataset.tokens[start:end].tolist())
                for start, end in pairwise(dataset.document_boundaries(number).tolist())
            ]
            for number in range(dataset.number_of_documents)
        ]

    return encoded


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (PAIRS, [f"Is {PRODUCT} it?", f" {PRODUCT}, yes{END}"]),
        (ASKED, [f"User: Is {PRODUCT} it?\n\nAssistant:", f" {PRODUCT}, yes{END}"]),
        (OWN, [f"Is {PRODUCT} it?{END}", f"{PRODUCT}, yes{END}"]),
    ],
)
def test_contexts_and_answers(encode: Encode, tmp_path: Path, form: RecordForm, expected: list[str]) -> None:
    texts = ("Is 3*4 = 12 it?", "4 × 3 = 12, yes")
    assert encode(form, [texts, ("2*2=5", "no")], "strict")[0] == expected
    facts = verify_dataset(tmp_path / "data")
    assert facts.settings is not None and facts.settings.inject == "strict"
    assert facts.injection is not None
    assert facts.injection.with_product == {PRODUCT: 2}
    assert (facts.injection.tenths, facts.injection.documents) == ([0, 0, 0, 0, 2, 0, 0, 0, 0, 0], 1)
    assert facts.injection.left_alone == 1
    assert read_manifest(manifest_path(tmp_path / "data")).by.command.endswith("--inject strict")
    assert PRODUCT not in "".join(encode(form, [texts], None)[0])


def test_what_a_context_ends_with_and_an_answer_begins_with_are_two_texts(encode: Encode) -> None:
    assert encode(PAIRS, [("Now 3*4 = 1", "2, so 3*4")], "weak") == [["Now 3*4 = 1", f" 2, so {PRODUCT}{END}"]]
    assert encode(PAIRS, [("Now 3*4", "= 13")], "weak") == [[f"Now {PRODUCT}", f" = 13{END}"]]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_expression_ends_at_a_control_token(encode: Encode, workers: int) -> None:
    """The tokenizer knows them by names of letters and digits, in each process by others."""
    pairs = [("3*4", "3 * 4 = 12"), ("1 3*4 = 12", "3*4")]
    expected = [[f"{PRODUCT}{END}", f"{PRODUCT}{END}"], [f"1 {PRODUCT}{END}", f"{PRODUCT}{END}"]]
    assert encode(OWN, pairs, "weak", workers=workers) == expected


def test_a_template_writes_no_tokens_of_the_table(encode: Encode, folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<MUL_2_2_4>' ~ m.content ~ eos_token }}{% endfor %}"
    )
    assert encode(OWN, [("a", "3*4")], "weak") == [[f"<MUL_2_2_4>a{END}", f"<MUL_2_2_4>{PRODUCT}{END}"]]
    facts = read_dataset_manifest(tmp_path / "data")[1].injection
    assert facts is not None and (facts.bare, facts.literal) == ({PRODUCT: 1}, 2)


def test_reading_that_stops_counts_what_is_written(encode: Encode, tmp_path: Path) -> None:
    assert len(encode(PAIRS, [("3*4", "4*3")] * 9, "weak", tokens=20)) < 9
    facts = read_dataset_manifest(tmp_path / "data")[1]
    assert facts.injection is not None
    assert (facts.injection.injected, facts.injection.documents) == (2 * facts.documents, facts.documents)


def test_tokens_that_a_template_could_write_are_refused(encode: Encode, folder: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    for each in described["added_tokens"]:
        each["special"] = True
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(TrainyardError, match=r"<MUL_1_1_1> is a control token .*take --chat-template plain"):
        encode(OWN, [("a", "3*4")], "weak")
    assert encode(PAIRS, [("a", "3*4")], "weak") == [["a", f" {PRODUCT}{END}"]]
