"""Sources in proportion to their weights, over stages: every sample in its turn, wherever one looks first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_tools.samples.blend import PERIOD, whole_weights
from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples, ValidationSamples
from data_tools.samples.concatenation import Concatenation
from data_tools.samples.order import TrainingOrder
from data_tools.samples.source import Sample
from megatron_patches.errors import TrainyardError


class Numbers:
    """Samples that are their own number, from a first one on."""

    def __init__(self, count: int, first: int = 0) -> None:
        self._count, self._first = count, first

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < self._count:
            raise IndexError(number)
        return {"tokens": np.array([self._first + number])}


def sources(*lengths: int) -> list[NamedSource]:
    return [NamedSource(f"s{number}", Numbers(length, 1000 * number)) for number, length in enumerate(lengths)]


def everything(samples: TrainingSamples, places: int) -> list[tuple[int, int]]:
    located = samples.locate(np.arange(places))
    return list(zip(located.source.tolist(), located.number.tolist(), strict=True))


stages_of_three = st.lists(
    st.tuples(st.sets(st.integers(0, 2), min_size=1), st.lists(st.integers(1, 9), min_size=3, max_size=3)),
    min_size=1,
    max_size=4,
)


@given(st.data(), stages_of_three)
@settings(max_examples=12, deadline=None)
def test_each_source_goes_on_where_it_was(data: st.DataObject, chosen: list[tuple[set[int], list[int]]]) -> None:
    """Whatever the stages: of each source the samples come in its own order, none twice in an epoch, none left out."""
    lengths = [data.draw(st.integers(1, 40)) for _ in range(3)]
    firsts = [0, *sorted(data.draw(st.sets(st.integers(1, 300), min_size=len(chosen) - 1, max_size=len(chosen) - 1)))]
    stages = []
    for first, (which, weights) in zip(firsts, chosen, strict=True):
        members = tuple(sorted(which))
        stages.append(Stage(first, members, whole_weights([weights[each] for each in members])))
    blend = BlendStages(stages, 3)
    samples = TrainingSamples(sources(*lengths), blend, seed=5)
    found = everything(samples, 400)
    for source, length in enumerate(lengths):
        numbers = [number for each, number in found if each == source]
        assert numbers == TrainingOrder(length, 5, f"s{source}").numbers(np.arange(len(numbers))).tolist()
        for at in (0, 1, 57, 299, 400):
            assert blend.counts(at)[source] == sum(each == source for each, _ in found[:at])
    for first, after in zip(stages, [*stages[1:], None], strict=True):
        end = after.first if after else 400
        assert {source for source, _ in found[first.first : end]} <= set(first.sources)
    scattered = np.random.default_rng(0).permutation(400)
    located = samples.locate(scattered)
    assert [found[place] for place in scattered] == list(zip(*map(NDArray.tolist, located), strict=True))


def test_a_source_in_file_order_is_read_as_it_lies_beside_others() -> None:
    shuffled, lies = NamedSource("s0", Numbers(9)), NamedSource("s1", Numbers(7, 1000), in_file_order=True)
    samples = TrainingSamples([shuffled, lies], BlendStages([Stage(0, (0, 1), whole_weights([1, 1]))], 2), seed=5)
    found = everything(samples, 60)
    assert [number for source, number in found if source == 1] == [place % 7 for place in range(30)]
    assert [number for source, number in found if source == 0] == TrainingOrder(9, 5, "s0").numbers(
        np.arange(30)
    ).tolist()
    place = [each for each, (source, _) in enumerate(found) if source == 1][10]
    assert samples[place]["tokens"].tolist() == [1003]


def test_one_source_named_data_is_read_as_ever() -> None:
    samples = TrainingSamples([NamedSource("data", Numbers(97))], BlendStages([Stage(0, (0,), (PERIOD,))], 1), 1234)
    assert [number for _, number in everything(samples, 300)] == TrainingOrder(97, 1234).numbers(
        np.arange(300)
    ).tolist()
    assert int(samples[100]["tokens"][0]) == everything(samples, 101)[100][1]


def test_sources_of_one_length_have_orders_of_their_own() -> None:
    numbers = [TrainingOrder(1000, 7, name).numbers(np.arange(1000)).tolist() for name in ("data", "en", "code")]
    assert all(sorted(each) == list(range(1000)) for each in numbers)
    assert len({tuple(each) for each in numbers}) == 3
    assert numbers[1][:8] == [442, 717, 602, 11, 749, 50, 641, 106]  # part of results: it may never change


def test_a_source_without_samples_is_named() -> None:
    with pytest.raises(TrainyardError, match="source s1: there are no samples"):
        TrainingSamples(sources(4, 0), BlendStages([Stage(0, (0, 1), whole_weights([1, 1]))], 2), 1)


@pytest.mark.parametrize(("lengths", "weights"), [((10, 10), (1, 1)), ((100, 3), (1, 1)), ((5, 50, 7), (1, 9, 1))])
def test_a_validation_blend_ends_before_the_first_sample_that_is_not_there(
    lengths: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    group = ValidationSamples([each.samples for each in sources(*lengths)], whole_weights(weights))
    read = [int(group[number]["tokens"][0]) for number in range(len(group))]
    for source, length in enumerate(lengths):
        of_source = [each - 1000 * source for each in read if each // 1000 == source]
        assert of_source == list(range(len(of_source))) and len(of_source) <= length
    assert any(sum(each // 1000 == source for each in read) == length for source, length in enumerate(lengths))
    with pytest.raises(IndexError):
        group[len(group)]


def test_parts_one_after_the_other() -> None:
    together = Concatenation([Numbers(3), Numbers(0), Numbers(4, 100)])
    assert [int(together[number]["tokens"][0]) for number in range(len(together))] == [0, 1, 2, 100, 101, 102, 103]
    assert [together.find(number) for number in (0, 2, 3, 6)] == [(0, 0), (0, 2), (2, 0), (2, 3)]
    for outside in (-1, 7):
        with pytest.raises(IndexError):
            together[outside]
