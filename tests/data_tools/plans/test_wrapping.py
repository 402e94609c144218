"""Texts between a cls and a sep token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.plans.planned_samples import PlannedSamples, PlannedSegments
from data_tools.plans.samples_config import SAMPLES
from data_tools.plans.wrapping import Wrapping
from megatron_patches.errors import Damaged, TrainyardError
from tests.data_tools.plans.requests import plan_of

MakeDataset = Callable[..., Path]
AROUND = Wrapping(cls=9001, sep=9002, pad=9003)
FIVE, TWELVE, THREE = list(range(100, 105)), list(range(200, 212)), [1, 2, 3]


def wrapped(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "wrapped": True, **more}


def own_texts(plan: PlannedSamples) -> list[list[list[int]]]:
    """The texts of each sample without what stands around them, after a look at that."""
    found = []
    for item in (plan[number] for number in range(len(plan))):
        tokens, segments = item["tokens"], item["segments"]
        assert tokens.shape == segments.shape == (plan.facts.read,) and tokens.dtype == segments.dtype == np.int64
        is_text = segments >= 0
        count = int(is_text.sum())
        assert is_text[:count].all() and (tokens[count:] == AROUND.pad).all()
        texts = [tokens[segments == number].tolist() for number in range(int(segments.max()) + 1)]
        assert all((each[0], each[-1]) == (AROUND.cls, AROUND.sep) and len(each) > 2 for each in texts)
        found.append([each[1:-1] for each in texts])
    return found


def test_packs_by_hand(make_dataset: MakeDataset) -> None:
    """Ten places have room for eight tokens of a text, and for two texts of three."""
    plan = plan_of(make_dataset([FIVE, THREE, TWELVE, [7, 8, 9]]), wrapped("packs"), read=10, wrapping=AROUND)
    assert own_texts(plan) == [[FIVE], [THREE, [7, 8, 9]], [TWELVE[:8]], [TWELVE[8:]]]
    item = plan[1]
    assert item["tokens"].tolist() == [9001, 1, 2, 3, 9002, 9001, 7, 8, 9, 9002]
    assert item["segments"].tolist() == [0] * 5 + [1] * 5
    facts = plan.facts
    assert (facts.tokens, facts.distinct_tokens, facts.segments, facts.cut) == (23, 23, 5, 1)
    assert facts.padding_share == pytest.approx(1 - 33 / 40), "what stands around texts is no padding"
    assert "each text between a cls and a sep token" in facts.describe()
    assert plan.stretches(1) == [(5, 8), (20, 23)], "the dataset's own tokens"


def test_windows_by_hand(make_dataset: MakeDataset) -> None:
    plan = plan_of(make_dataset([FIVE, TWELVE]), wrapped("windows", overlap=0.25), read=10, wrapping=AROUND)
    assert own_texts(plan) == [[FIVE], [TWELVE[:7]], [TWELVE[5:]]]
    assert plan.facts.settings["stride"] == 6, "a quarter of eight tokens overlaps, what is around them does not"


def test_a_damaged_length_that_leaves_no_room_for_what_is_around(make_dataset: MakeDataset) -> None:
    """Nine tokens are within a sample of ten places, and cls and sep then are not."""
    prefix = make_dataset([FIVE, TWELVE])
    plan = plan_of(prefix, wrapped("windows"), read=10, wrapping=AROUND)
    starts = np.array([0, 5])
    for lengths in (np.array([8, 9]), np.array([9, 8])):
        arrays = {"starts": starts, "lengths": lengths}
        with pytest.raises(Damaged, match="the plan is damaged"):
            PlannedSegments(prefix, plan.facts, IndexedDataset(prefix), arrays, None, AROUND)
    sound = {"starts": starts, "lengths": np.array([8, 8])}
    late = PlannedSegments(prefix, plan.facts, IndexedDataset(prefix), sound, None, AROUND)
    sound["lengths"][1] = 9  # as where only reading finds it
    with pytest.raises(Damaged, match="sample 1 is not made of tokens"):
        late[1]


def test_filters_count_a_text_s_own_tokens(make_dataset: MakeDataset) -> None:
    section = wrapped("packs", filters={"minimum_tokens": 5, "maximum_tokens": 5})
    plan = plan_of(make_dataset([FIVE, THREE, TWELVE]), section, read=20, wrapping=AROUND)
    assert own_texts(plan) == [[FIVE]] and plan.facts.removed == {"minimum_tokens": 1, "maximum_tokens": 1}
    whole = plan_of(make_dataset([FIVE, TWELVE]), wrapped("packs", longer="drop"), read=13, wrapping=AROUND)
    assert own_texts(whole) == [[FIVE]], "twelve tokens and two more are fourteen"


def test_answers_are_texts_alone(make_dataset: MakeDataset) -> None:
    """The first token follows on the cls token, so that a text of one answer is kept."""
    mask = np.array([0, 0, 0, 1, 1, 1], dtype=bool)

    def answers(first: int, count: int) -> NDArray[np.bool_]:
        return mask[first : first + count]

    plan = plan_of(make_dataset([FIVE, [6]]), wrapped("packs"), read=11, wrapping=AROUND, answers=answers)
    assert plan[0]["tokens"].tolist() == [9001, *FIVE, 9002, 9001, 6, 9002, 9003]
    assert plan[0]["answers"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0]


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    read=st.integers(3, 16),
    section=st.sampled_from([wrapped("packs"), wrapped("windows"), wrapped("packs", block_documents=3)]),
)
def test_each_token_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], read: int, section: dict[str, object]
) -> None:
    prefix = tmp_path_factory.mktemp("wrapped") / "made"
    with IndexedDatasetWriter(prefix, "u2") as writer:
        writer.add_documents(np.arange(1, sum(lengths) + 1), lengths)
    plan = plan_of(prefix, section, read, wrapping=AROUND)
    texts = own_texts(plan)
    found = [token for sample in texts for text in sample for token in text]
    assert sorted(found) == list(range(1, sum(lengths) + 1))
    places = sum(len(text) + 2 for sample in texts for text in sample)
    assert plan.facts.padding_share == pytest.approx(1 - places / (len(plan) * read))


@pytest.mark.parametrize("section", [wrapped("packs"), wrapped("windows")], ids=str)
def test_what_leaves_no_room_is_refused(section: Any, make_dataset: MakeDataset) -> None:
    with pytest.raises(TrainyardError, match=r"leaves no room for text.* set data.sequence_length to 3 or more"):
        plan_of(make_dataset([FIVE]), section, read=2, wrapping=AROUND)
    assert not list(SAMPLES.validate(section).problems(3))
    odd = SAMPLES.validate(wrapped("windows", stride=7))
    assert [each.partition(";")[0] for each in odd.problems(8)] == [
        "data.samples.stride 7 leaves tokens out between windows of 6, what a sample has room for"
    ]


def test_what_is_not_wrapped_has_the_key_that_it_had() -> None:
    """Plans, streams and facts of texts are found by it."""
    for name in ("packs", "windows"):
        plain = SAMPLES.validate({"name": name}).decides(16)
        assert SAMPLES.validate({"name": name, "wrapped": False}).decides(16) == plain
        assert "wrapped" not in plain
        assert SAMPLES.validate(wrapped(name)).decides(16)["wrapped"] is True
