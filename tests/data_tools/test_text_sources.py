"""Raw text as a source of a run: its section, what is held out of it, and the samples that it gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data_tools.data_config import DataConfig
from data_tools.data_record import record_of
from data_tools.data_warnings import data_warnings
from data_tools.opened_sources import in_silence
from data_tools.opened_text import ReadText
from data_tools.run_data import RunData
from data_tools.samples.blended import Located, TrainingSamples
from data_tools.samples.lengths import SampleLengths
from data_tools.streams.end_of_data import EndOfData
from data_tools.text.tokenizers import load_tokenizer
from data_tools.text_sources.facts import TextPreparation
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.errors import Missing, Refused, TrainyardError
from tests.data_tools.conftest import TEXTS

LENGTHS = SampleLengths(read=9, stride=8, positions=(("tokens", 8),), counted=8)
EVALUATED = 3


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """TEXTS, each four times in other words."""
    texts = [f"{text} {number} {text}" for number in range(4) for text in TEXTS]
    return write(tmp_path / "raw" / "texts.jsonl", texts)


def write(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def opened(tmp_path: Path, tokenizer_folder: Path) -> Any:
    """Opens the data of a run, as a launch does, or as its ranks do."""

    def open_data(evaluated: int = EVALUATED, rank: bool = False, **section: Any) -> RunData:
        config = DataConfig(tokenizer=str(tokenizer_folder), sequence_length=8, **section)
        texts = TextPreparation(tmp_path / "kept", evaluated)
        return RunData(config, tmp_path, LENGTHS, None, None if rank else in_silence, texts)

    return open_data


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "text for raw text"),
        ({"path": "a", "text": "b"}, "both path and text are given"),
        ({"text": "a", "sources": [{"name": "a", "text": "b"}]}, "text: null"),
        ({"sources": [{"name": "a"}]}, "source a has neither path nor text"),
        ({"sources": [{"name": "a", "path": "b", "text": "c"}]}, "source a has both path and text"),
        ({"sources": [{"name": "a", "text": "c", "range": "0:0.5"}]}, "the text of source a is read as it comes"),
        ({"sources": [{"name": "a", "text": "c", "shards": "1:"}]}, "the text of source a is read as it comes"),
        ({"text": {"path": "a", "streaming": False}}, "streaming of a would do nothing: files are read where they lie"),
        ({"text": {"path": "a", "split": "train", "retries": 1}}, r"split, retries of a would do nothing.*Remove them"),
        ({"text": {"path": "hf:a", "timeout_seconds": 400}}, "wait 2,400 s for one answer, .* 1,200 s at most"),
        ({"text": {"path": "a", "shuffle_documents": 0}}, "greater than or equal to 1"),
        (
            {"path": "a", "changes": [{"from_step": 5, "sources": [{"name": "data", "text": "a"}]}]},
            "source data reads a at first and text a from a change on; give what is new a name of its own",
        ),
    ],
)
def test_sections_that_cannot_be(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(tokenizer="t", sequence_length=8, **section)


def test_how_much_is_held_out_has_to_be_said() -> None:
    with pytest.raises(ValidationError, match=r"samples\s+Field required"):
        EvaluationConfig(every_steps=2)


def test_a_path_alone_is_short_for_a_section() -> None:
    long = DataConfig(tokenizer="t", sequence_length=8, text={"path": "raw"})
    assert DataConfig(tokenizer="t", sequence_length=8, text="raw") == long
    assert DataConfig.model_validate(long.model_dump()) == long
    (source,) = long.first_sources
    assert (source.name, source.told()) == ("data", "text raw")


@pytest.mark.slow
def test_the_first_records_are_held_out_and_the_others_read(opened: Any, raw: Path, tokenizer_folder: Path) -> None:
    data = opened(text={"path": "raw/texts.jsonl", "shuffle_documents": 1})
    (group,) = data.groups
    tokenizer = load_tokenizer(tokenizer_folder)
    documents = [[*tokenizer.encode(text), tokenizer.end_of_document] for text in texts_of(raw)]
    (shard,) = group.sources[0].shards
    assert shard.dataset.tokens.tolist() == [token for each in documents[:EVALUATED] for token in each]
    assert len(group.samples) >= EVALUATED
    stream = [token for each in documents[EVALUATED:] for token in each]
    expected = [stream[at : at + LENGTHS.read] for at in range(0, len(stream) - LENGTHS.read, LENGTHS.stride)]
    assert read(data, len(expected)) == expected


@pytest.mark.slow
def test_shuffled_documents_are_the_same_in_another_order(opened: Any, raw: Path) -> None:
    ordered, shuffled, again = (
        read(opened(0, text={"path": "raw", "shuffle_documents": each}), 200) for each in (1, 10, 10)
    )
    assert shuffled == again
    assert shuffled != ordered
    assert len({tuple(each) for each in shuffled}) > 140


@pytest.mark.slow
def test_a_blend_of_text_and_dataset(opened: Any, raw: Path, text_dataset: Path) -> None:
    sources = [{"name": "raw", "weight": 3, "text": "raw"}, {"name": "made", "path": str(text_dataset)}]
    data = opened(0, split="100", sources=sources, skip_samples=[[4, 9]], max_epochs=99.0)
    samples = data.training(seed=1)
    located = samples.locate(np.arange(40))
    numbers = located.number[located.source == 0]
    assert numbers.tolist() == list(range(len(numbers))) and 29 <= len(numbers) <= 31
    alone = opened(0, sources=[sources[0], {**sources[1], "weight": 9.0}], split="100", max_epochs=99.0)
    other = alone.training(seed=1)
    fewer = other.locate(np.arange(40))
    assert texts_read(samples, located, 4) == texts_read(other, fewer, 4)
    plan = data.plan(40, 0)
    assert [each.text is not None for each in plan.sources] == [True, False]
    assert "about 0." in plan.describe()[1][1] and "raw text of about" in plan.describe()[1][1]
    close(samples, other)


def texts_read(samples: TrainingSamples, located: Located, count: int) -> list[list[int]]:
    """The first samples of the first source."""
    here = np.flatnonzero(located.source == 0)[:count]
    found = samples.read(Located(located.source[here], located.number[here]))
    return [each["tokens"].tolist() for each in found]


def read(data: RunData, count: int) -> list[list[int]]:
    """The first samples of training."""
    samples = data.training(seed=1)
    found = [each["tokens"].tolist() for each in samples.read(samples.locate(np.arange(count)))]
    close(samples)
    return found


@pytest.mark.slow
def test_a_reader_ends_with_the_epochs_that_it_may_read(opened: Any, raw: Path) -> None:
    data = opened(0, text="raw", max_epochs=1.5)
    (text,) = data.texts
    reader = text.open_reader(1, [], 32, 1)
    try:
        assert [each["tokens"].tolist() for each in reader.take(0, 40)] == read(data, 40)
        with pytest.raises(EndOfData) as ended:
            reader.take(40, 10_000)
    finally:
        reader.close()
    planned = data.plan(ended.value.samples + 1, 0)
    assert abs(planned.sources[0].planned_epochs - 2) < 0.2
    (warning,) = planned.warnings()
    assert "epochs of its text are planned, and max_epochs is 1.5" in warning


def test_ranks_look_at_no_file(opened: Any, raw: Path) -> None:
    at_launch = opened(text="raw")
    raw.unlink()
    rank = opened(rank=True, text="raw")
    assert rank.identity == at_launch.identity
    assert rank.tokenizer_vocabulary == at_launch.tokenizer_vocabulary == 300
    assert [len(each.samples) for each in rank.groups] == [len(each.samples) for each in at_launch.groups]
    with pytest.raises(Missing, match=r"what the launch found out of the text of source data is not there .* again"):
        opened(rank=True, text={"path": "raw", "key": "content"})
    with pytest.raises(TrainyardError, match="has no file with documents"):
        rank.training(seed=1)[0]


def test_text_that_was_changed_since_the_launch_is_refused(opened: Any, raw: Path) -> None:
    data = opened(text="raw")
    write(raw, ["another text"])
    with pytest.raises(Refused, match=r"the text of source data was changed .* then and .* now; restore it"):
        data.training(seed=1)[0]


def test_identity(opened: Any, raw: Path) -> None:
    section = {"path": "raw", "shuffle_documents": 5}
    same = opened(text=section).identity
    assert opened(text={**section, "path": "raw/texts.jsonl", "max_bad": 3}).identity == same
    assert same["source data"]["reserved"] == EVALUATED
    changes: list[dict[str, Any]] = [{"shuffle_documents": 6}, {"append_eod": False}]
    found = [opened(text={**section, **change}).identity for change in changes]
    found += [opened(evaluated, text=section).identity for evaluated in (0, EVALUATED + 1)]
    write(raw, texts_of(raw)[:-1])
    found.append(opened(text=section).identity)
    assert all(each != same for each in found)


def test_what_is_held_out_by_name_is_all_that_is_held_out(opened: Any, raw: Path) -> None:
    write(raw.with_name("test-0.jsonl"), TEXTS[:10])
    data = opened(text="raw")
    assert data.identity["source data"]["reserved"] == 0
    assert data.groups[0].documents == EVALUATED
    assert "held out: the first 3 documents of files named test" in data.plan(1, EVALUATED).describe()[0][1]
    assert opened(0, text="raw").identity == data.identity


def test_without_evaluation_nothing_is_held_out(opened: Any, raw: Path) -> None:
    data = opened(0, text="raw")
    assert (data.groups, data.identity["source data"]["reserved"]) == ([], 0)
    with pytest.raises(TrainyardError, match=r"names the text of held, .* add evaluation"):
        opened(0, text="raw", validation=[{"name": "held", "text": "raw"}])


def test_a_group_validates_on_text(opened: Any, raw: Path) -> None:
    write(raw.parents[1] / "held.jsonl", TEXTS[:10])
    data = opened(text="raw", validation=[{"name": "held", "text": {"path": "held.jsonl"}}])
    assert (data.identity["source data"]["reserved"], data.groups[0].name) == (0, "held")
    assert data.groups[0].documents == EVALUATED
    assert not list(data_warnings(data))
    record = record_of(data, data.plan(8, EVALUATED))
    assert record["sources"][0]["text_source"]["id"] == data.texts[0].stream_id
    assert record["validation"][0]["sources"][0]["datasets"]["count"] == 1


def test_a_group_that_reads_files_of_training_is_told(opened: Any, raw: Path) -> None:
    write(raw.with_name("a.jsonl"), TEXTS[:10])
    path = raw.with_name("a.jsonl")
    (warning,) = data_warnings(opened(text="raw", validation=[{"name": "held", "text": str(path)}]))
    assert warning.startswith(f"the first documents of {path} are validated on as the text held, and trained on")
    group = {"name": "held", "text": "raw"}  # its first documents are those of a.jsonl alone
    assert not list(data_warnings(opened(text="raw/texts.jsonl", validation=[group])))


def test_too_little_to_hold_out_and_too_few_ids(opened: Any, raw: Path) -> None:
    with pytest.raises(TrainyardError, match=r"\b80 documents"):
        opened(1000, text="raw")
    (problem,) = opened(text="raw").vocabulary_problems(299)
    assert problem.startswith("tokenizer bpe gives raw text ids up to 299, model.vocab_size 299 has ids up to 298")
    (problem,) = opened(text={"path": "raw", "append_eod": False}).end_of_document_problems(["x"])
    assert problem.startswith("x must see where documents end, and text.append_eod of source data is false")


def test_what_is_held_out_is_made_once(opened: Any, raw: Path, tmp_path: Path) -> None:
    opened(text="raw")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    opened(text="raw")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()} == before
    for path in before:
        path.unlink()
    data = opened(text="raw")
    assert {path.name for path in before} == {path.name for path in (tmp_path / "kept").iterdir()}
    assert data.groups[0].documents == EVALUATED


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def close(*of_runs: TrainingSamples) -> None:
    """End what reads."""
    for samples in of_runs:
        for number in samples.streams:
            source = samples.sources[number].samples
            assert isinstance(source, ReadText)
            source.close()
