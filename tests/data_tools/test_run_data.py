import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.data_config import DataConfig
from data_tools.datasets.adoption import adopt_dataset
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import manifest_path
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.scan import scan
from data_tools.datasets.verification import verify_dataset
from data_tools.records.record import RecordForm
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from megatron_patches.errors import TrainyardError
from tests.data_tools.conftest import TEXTS
from tests.data_tools.datasets.test_indexed_dataset import write_by_hand

Config = Callable[..., DataConfig]
MakeDataset = Callable[..., Path]


@pytest.fixture
def config(text_dataset: Path, tokenizer_folder: Path) -> Config:
    """The `data:` section of a run over TEXTS."""

    def make(**changes: object) -> DataConfig:
        settings = {"path": str(text_dataset), "tokenizer": str(tokenizer_folder), "split": "3,1", "sequence_length": 8}
        return DataConfig.model_validate({**settings, **changes})

    return make


def opened(config: DataConfig, checkout: Path = Path("/nowhere")) -> RunData:
    """The data of a run that predicts the next token."""
    length = config.sequence_length
    return RunData(config, checkout, SampleLengths(length + 1, length, (("tokens", length),), length))


def windows_of(data: RunData) -> int:
    """Of an epoch of the run's first source."""
    return len(data.sources[0].training.samples)


def test_what_a_run_reads(config: Config, text_dataset: Path) -> None:
    data = opened(config())
    dataset = IndexedDataset(text_dataset)
    boundary = dataset.document_token_offset(15)
    training = (boundary - 1) // 8
    plan = data.check(vocab_size=300, training_samples=training, validation_samples=2)
    (source,), (group,) = plan.sources, plan.groups
    assert (source.samples, source.tokens, source.planned_epochs) == (training, boundary, 1.0)
    assert plan.planned_tokens == training * 8
    assert (windows_of(data), len(data.validation["validation"])) == (training, group.samples)
    assert group.tokens == len(dataset.tokens) - boundary
    assert np.array_equal(data.validation["validation"][0]["tokens"], dataset.tokens[boundary : boundary + 9])
    assert data.identity == {"dataset": read_manifest(manifest_path(text_dataset)).id}
    assert data.tokenizer_id == read_manifest(manifest_path(text_dataset)).parents[0]
    assert f"{training * 8:,} tokens planned = 1.000 epochs of {training:,} windows of 8" in plan.describe()[0][1]


def test_relative_paths_start_at_the_checkout(config: Config, text_dataset: Path, tokenizer_folder: Path) -> None:
    shutil.copytree(tokenizer_folder, text_dataset.parent / "tokenizer")
    opened(config(path="texts", tokenizer="tokenizer"), text_dataset.parent)


@pytest.mark.parametrize(
    ("changes", "samples", "message"),
    [
        ({}, (300, 1000, 1), r"data.max_epochs allows 1; .* or set data.max_epochs to \d+\.\d{3} or more"),
        ({"max_epochs": 2.5}, (300, 1000, 1), r"allows 2.5"),
        ({}, (300, 1, 1000), r"evaluation.samples is 1,000, the validation split .* has \d+ windows of 8"),
        ({"split": "1"}, (300, 1, 1), r"evaluation.samples is 1, .*0 windows"),
        ({"split": "0,1"}, (300, 1, 1), r"training split .* has 0 tokens, one sample needs 9"),
        ({"sequence_length": 10**6}, (300, 1, 1), r"one sample needs 1000001; give more data"),
        ({}, (100, 1, 1), r"holds token id \d+, model.vocab_size 100 has ids up to 99; set model.vocab_size to 300"),
    ],
)
def test_data_that_is_not_enough(
    config: Config, changes: dict[str, object], samples: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(TrainyardError, match=message):
        opened(config(**changes)).check(*samples)


def test_the_largest_plan_is_allowed_and_one_more_sample_is_not(config: Config) -> None:
    data = opened(config(max_epochs=1.5))
    most = int(windows_of(data) * 1.5)
    assert data.check(300, most, 0).sources[0].planned_epochs == pytest.approx(most / windows_of(data))
    with pytest.raises(TrainyardError, match="max_epochs"):
        data.check(300, most + 1, 0)


def test_what_is_left_out_is_counted_in_epochs_and_not_in_tokens(config: Config) -> None:
    windows = windows_of(opened(config()))
    data = opened(config(skip_samples=[[2, 6], [windows + 1, windows + 9]], max_epochs=1.0))
    plan = data.check(300, windows - 4, 0)
    assert (plan.planned_samples, plan.skipped_samples, plan.sources[0].planned_epochs) == (windows - 4, 4, 1.0)
    assert plan.planned_tokens == (windows - 4) * plan.counted
    assert dict(plan.describe())["skipped data"] == (
        f"4 samples left out, not counted in the tokens planned: 2:6, {windows + 1}:{windows + 9}; 8 more lie beyond "
        "the run's end (data.skip_samples)"
    )
    message = rf"{windows - 3} samples and leaves out 4 = 1\.\d+ epochs .* set data.max_epochs to 1\.\d+ or more"
    with pytest.raises(TrainyardError, match=message):
        data.check(300, windows - 3, 0)


def test_missing_data(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"none.bin does not exist.*tools/preprocess FILES --output .*none"):
        opened(config(path="none"), tmp_path)


def test_no_manifest(config: Config, text_dataset: Path) -> None:
    manifest_path(text_dataset).unlink()
    with pytest.raises(TrainyardError, match=r"has no manifest .*tools/dataset adopt .*texts --tokenizer DIR"):
        opened(config())


def test_another_tokenizer(config: Config, sentencepiece_model: Path) -> None:
    with pytest.raises(TrainyardError, match=r"was made with tokenizer bpe .* is another one"):
        opened(config(tokenizer=str(sentencepiece_model)))


def test_data_marked_invalid(config: Config, text_dataset: Path) -> None:
    path = manifest_path(text_dataset)
    status = Status(state="invalid", reason="duplicated", date="2026-01-01")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    with pytest.raises(TrainyardError, match=r"invalid since 2026-01-01: duplicated.*data.allow_invalid"):
        opened(config())
    assert opened(config(allow_invalid=True)).dataset_ids


def test_another_dataset_under_the_same_manifest(config: Config, text_dataset: Path) -> None:
    with IndexedDatasetWriter(text_dataset, "u2") as writer:
        writer.add_document([1, 2, 3])
    with pytest.raises(TrainyardError, match=r"texts.bin has 6 bytes, its manifest says"):
        opened(config())


NEED = ["objective.reset_attention: true", "objective.loss_after_end_of_document: false"]


def test_the_end_of_a_document_is_the_tokenizers(config: Config, text_dataset: Path, tokenizer_folder: Path) -> None:
    data = opened(config())
    token = load_tokenizer(tokenizer_folder).end_of_document
    assert data.end_of_document(NEED) == token is not None
    assert all(document[-1] == token for document in IndexedDataset(text_dataset))
    assert data.end_of_document([]) is None


def test_documents_made_without_ends(config: Config, tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    preprocess(PreprocessRequest([tmp_path / "text.jsonl"], tmp_path / "endless", tokenizer_folder))
    data = opened(config(path=str(tmp_path / "endless")))
    assert data.end_of_document([]) is None
    expected = (
        "objective.reset_attention: true and objective.loss_after_end_of_document: false must see where documents "
        r"end, and dataset .*endless was made without --append-eod; run tools/preprocess with --append-eod, or change"
    )
    with pytest.raises(TrainyardError, match=expected):
        data.end_of_document(NEED)


@pytest.mark.parametrize(("turns", "refused"), [(1, False), (2, True)])
def test_ends_within_chats(config: Config, tmp_path: Path, tokenizer_folder: Path, turns: int, refused: bool) -> None:
    turn = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps({'chat': turn * turns})}\n" * 5)
    form = RecordForm("chat", ("chat",), "plain")
    preprocess(PreprocessRequest([tmp_path / "a.jsonl"], tmp_path / "chats", tokenizer_folder, records=form))
    problems = list(opened(config(path=str(tmp_path / "chats"))).end_of_document_problems(NEED))
    assert [("a chat would be cut apart" in each) for each in problems] == [True] * refused


def test_a_tokenizer_that_ends_no_document(config: Config, tmp_path: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(tmp_path / "endless"), vocab_size=38, minloglevel=2, eos_id=-1
    )
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    preprocess(PreprocessRequest([tmp_path / "text.jsonl"], tmp_path / "text", tmp_path / "endless.model"))
    data = opened(config(path=str(tmp_path / "text"), tokenizer=str(tmp_path / "endless.model")))
    told = r"tokenizer endless.model has no end-of-document token; set data.samples to packs .*take a tokenizer"
    with pytest.raises(TrainyardError, match=told):
        data.end_of_document(NEED)


def test_ends_of_an_adopted_datasets_documents_are_looked_at(
    make_dataset: MakeDataset, tokenizer_folder: Path, config: Config
) -> None:
    """How it was made is not known; empty documents end with nothing."""
    token = load_tokenizer(tokenizer_folder).end_of_document
    assert token is not None
    prefix = make_dataset([[], *([[5, 6, token]] * 250), []])
    adopt_dataset(prefix, tokenizer_folder)
    assert opened(config(path=str(prefix))).end_of_document(NEED) == token
    manifest_path(prefix).unlink()
    make_dataset([[5, 6, token], [7, 8], [5, 6, token]])
    adopt_dataset(prefix, tokenizer_folder)
    data = opened(config(path=str(prefix)))
    with pytest.raises(TrainyardError, match=rf"document 1 of dataset .* does not end with token {token}; run tools/"):
        data.end_of_document(NEED)


def test_verification(text_dataset: Path) -> None:
    assert verify_dataset(text_dataset).documents == 20
    tokens = bytearray(text_dataset.with_name("texts.bin").read_bytes())
    tokens[0:2] = (5000).to_bytes(2, "little")
    text_dataset.with_name("texts.bin").write_bytes(tokens)
    with pytest.raises(TrainyardError) as caught:
        verify_dataset(text_dataset)
    for arguments in ("texts.bin has sha256", "largest token id: 5000 found", "5000 lies beyond the 300 ids"):
        assert arguments in str(caught.value)


def test_scanning_finds_what_opening_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_tools.datasets.scan.ELEMENTS_READ_AT_ONCE", 2)
    monkeypatch.setattr("data_tools.datasets.indexed_dataset.POINTERS_CHECKED_AT_OPEN", 2)
    tokens = np.array([3, 9, 4, 1, 5], dtype="<u2")
    write_by_hand(tmp_path / "good", tokens, [1, 0, 3, 1], [0, 1, 2, 2, 4])
    assert scan(IndexedDataset(tmp_path / "good")) == (9, 2)
    write_by_hand(tmp_path / "back", tokens, [1, 0, 3, 1], [0, 3, 2, 4])
    with pytest.raises(TrainyardError, match="document 1 starts at sequence 3 and the next one at 2"):
        scan(IndexedDataset(tmp_path / "back"))
    write_by_hand(tmp_path / "gap", tokens, [1, 1, 1, 1, 1], [0, 5])
    index = bytearray((tmp_path / "gap.idx").read_bytes())
    index[34 + 20 + 16] = 5
    (tmp_path / "gap.idx").write_bytes(index)
    with pytest.raises(TrainyardError, match="sequence 1 ends at byte 4, the next one starts at byte 5"):
        scan(IndexedDataset(tmp_path / "gap"))
    write_by_hand(tmp_path / "negative", np.array([3, -1], dtype="<i4"), [2], [0, 1], code=4)
    with pytest.raises(TrainyardError, match="negative token id -1"):
        scan(IndexedDataset(tmp_path / "negative"))
    write_by_hand(tmp_path / "float", np.array([3.0]), [1], [0, 1], code=6)
    with pytest.raises(TrainyardError, match="holds float64, expected integer"):
        scan(IndexedDataset(tmp_path / "float"))


def test_a_foreign_dataset_is_adopted(make_dataset: MakeDataset, tokenizer_folder: Path, config: Config) -> None:
    prefix = make_dataset([list(range(100)), [], list(range(99))])
    manifest = adopt_dataset(prefix, tokenizer_folder)
    assert manifest.facts["largest_token_id"] == 99
    assert manifest.facts["empty_documents"] == 1
    assert verify_dataset(prefix).tokens == 199
    opened(config(path=str(prefix))).check(300, 1, 0)
    with pytest.raises(TrainyardError, match="exists already"):
        adopt_dataset(prefix, tokenizer_folder)


def test_a_foreign_dataset_of_another_tokenizer(make_dataset: MakeDataset, tokenizer_folder: Path) -> None:
    prefix = make_dataset([[1, 300]])
    with pytest.raises(TrainyardError, match=r"holds token id 300, tokenizer bpe has ids up to 299"):
        adopt_dataset(prefix, tokenizer_folder)
    assert not manifest_path(prefix).exists()
