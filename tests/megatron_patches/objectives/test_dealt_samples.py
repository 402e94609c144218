"""Samples of streams that rank 0 reads and deals out: the same on every rank, and so is an error."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples
from data_tools.samples.skipping import SkippedSamples
from data_tools.samples.source import Sample
from data_tools.streams.position import StreamPosition
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.run.progress import Progress
from tests.ranks import run_on_ranks

ENDS = 40
"""sample that cannot be read"""


class Counted:
    """A stream whose sample i is i and i + 1; a place is kept every ten samples."""

    def __init__(self, known: Sequence[StreamPosition], taken: list[tuple[int, int]]) -> None:
        self.begins = max((each.samples for each in known), default=0)
        self.taken = taken
        self.closed = 0

    def take(self, first: int, end: int) -> list[Sample]:
        self.taken.append((first, end))
        if end > ENDS:
            raise Damaged(f"sample {ENDS} is cut off")
        return [{"tokens": np.array([number, number + 1])} for number in range(first, end)]

    def position_for(self, number: int) -> StreamPosition:
        return StreamPosition(samples=number // 10 * 10)

    def close(self) -> None:
        self.closed += 1


class Whole:
    """A source with an end."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Sample:
        return {"tokens": np.array([1000 + number, 0])}


def training_samples() -> TrainingSamples:
    sources = [NamedSource("raw", Counted([], []), ("r",), is_stream=True), NamedSource("made", Whole(), ("m",))]
    return TrainingSamples(sources, BlendStages([Stage(0, (0, 1), (32768, 32768))], 2), seed=3)  # type: ignore[list-item]


def deal(steps: int) -> dict[str, Any]:
    """What a rank reads of each step, until one fails; and what it was asked for."""
    import os

    import torch

    from megatron_patches.objectives.dealt_samples import DealtSamples
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups, stop_process_groups

    layout = Layout(1, 1, int(os.environ["WORLD_SIZE"]))
    groups = start_process_groups(layout, torch.float32)
    taken: list[tuple[int, int]] = []
    opened: list[list[int]] = []

    def open_stream(source: int, known: Sequence[StreamPosition]) -> Any:
        assert source == 0
        opened.append([each.samples for each in known])
        return Counted(known, taken)

    samples = DealtSamples(training_samples(), open_stream, groups)
    samples.begin_from({"raw": StreamPosition(samples=10), "other": StreamPosition(samples=3)})
    read, error = [], None
    try:
        for step in range(steps):
            prepared = samples.prepare(np.arange(step * 20, step * 20 + 20))
            mine = np.arange(step * 20, step * 20 + 20)[groups.coordinates.data :: groups.layout.data]
            located = prepared.locate(mine)
            read += [sample["tokens"].tolist() for sample in prepared.read(located)]
    except TrainyardError as found:
        error = (type(found).__name__, str(found))
    positions = {name: each.samples for name, each in samples.positions([25, 0]).items()}
    samples.rest()
    stop_process_groups()
    return {"read": read, "error": error, "taken": taken, "opened": opened, "positions": positions}


def test_every_rank_reads_its_own_and_an_error_is_the_same_on_all() -> None:
    (alone,), (first, second) = run_on_ranks(deal, 1, 5), run_on_ranks(deal, 2, 5)
    assert len(alone["read"]) == 80  # of each step ten samples are of the stream, and the fifth one comes to the 40th
    assert sorted(first["read"] + second["read"]) == sorted(alone["read"])
    streamed = [row[0] for row in alone["read"] if row[0] < 1000]
    assert streamed == list(range(40))
    assert {"Damaged"} == {each["error"][0] for each in (alone, first, second)}
    assert {each["error"][1] for each in (alone, first, second)} == {"sample 40 is cut off"}
    assert first["taken"] == alone["taken"] == [(at, at + 10) for at in range(0, 50, 10)]
    assert (second["taken"], second["opened"], second["positions"]) == ([], [], {})
    assert first["opened"] == [[10]] and first["positions"] == {"raw": 20}


def test_what_was_dealt_is_read() -> None:
    samples = training_samples()
    located = samples.locate(np.arange(4, 8))
    assert located.number[located.source == 0].tolist() == [2, 3]
    dealt = {0: {number: {"tokens": np.array([number + 5])} for number in (2, 3)}}
    rows = [row["tokens"].tolist() for row in samples.read(located, dealt)]
    assert [row for row in rows if len(row) == 1] == [[7], [8]]


@pytest.mark.parametrize("shift", [0, 3])
def test_hashes_are_of_places_sources_and_content(shift: int) -> None:
    samples = training_samples()
    places = np.arange(6) + shift
    located = samples.locate(places)
    found = [{"tokens": np.array([number])} for number in range(6)]
    other = TrainingSamples(
        [replace(samples.sources[0], dataset_ids=("another",)), samples.sources[1]], samples.stages, seed=3
    )
    ours, theirs = (each.hashes(places, located, found) for each in (samples, other))
    assert ((ours == theirs) == (located.source == 1)).all()


def test_a_place_that_a_checkpoint_lacks_is_told() -> None:
    from megatron_patches.objectives.dealt_samples import DealtSamples
    from megatron_patches.training.stream_positions import StreamPositions

    class Dealt(DealtSamples):
        def __init__(self) -> None:
            self.samples = training_samples()
            self.begun: dict[str, StreamPosition] = {}

        def begin_from(self, positions: Any) -> None:
            self.begun = dict(positions)

    class Loop:
        def __init__(self) -> None:
            self.progress = Progress(step=1, samples=8)
            self.told: list[str] = []

        def emit(self, record: Any) -> None:
            self.told.append(record.text)

    expected = "source raw is read on from: it is read from its beginning, and its first 5 samples are passed over"
    for state, told in (({}, 1), ({"raw": StreamPosition(samples=3).model_dump()}, 0)):
        dealt, loop = Dealt(), Loop()
        callback = StreamPositions(dealt, SkippedSamples([(0, 2)]))
        callback.load_state(state)
        callback.on_start(loop)  # type: ignore[arg-type]
        assert list(dealt.begun) == list(state)
        assert [expected in each for each in loop.told] == [True] * told
    with pytest.raises(Damaged, match="the place in a text source cannot be read"):
        StreamPositions(Dealt(), SkippedSamples()).load_state({"raw": {"samples": "many"}})


def test_streams_begin_before_the_run_is_resumed_and_again_if_that_finds_another_place() -> None:
    from megatron_patches.objectives.dealt_samples import DealtSamples

    opened: list[Counted] = []

    def open_stream(source: int, known: Sequence[StreamPosition]) -> Any:
        opened.append(Counted(known, []))
        return opened[-1]

    groups = SimpleNamespace(rank=0, layout=SimpleNamespace(world_size=1))
    samples = DealtSamples(training_samples(), open_stream, groups)  # type: ignore[arg-type]
    raw = np.flatnonzero(samples.samples.locate(np.arange(9)).source == 0)
    samples.begin_from({"raw": StreamPosition(samples=20)})
    samples.read_ahead(np.setdiff1d(np.arange(9), raw))
    assert not opened  # nothing of the stream is due
    samples.read_ahead(raw)
    samples.begin_from({"raw": StreamPosition(samples=20)})
    samples.prepare(np.arange(60, 80))
    assert [(each.begins, each.closed) for each in opened] == [(20, 0)]
    for places, begins in (({"raw": StreamPosition(samples=10)}, 10), ({}, 0)):
        samples.begin_from(places)
        assert opened[-1].closed == 1
        samples.prepare(np.arange(60, 80))
        assert opened[-1].begins == begins
    assert len(opened) == 3


def test_a_checkpoint_that_cannot_be_read_keeps_nothing_from_beginning(tmp_path: Path) -> None:
    from megatron_patches.training.stream_positions import StreamPositions

    read: list[NDArray[np.int64]] = []
    dealt = SimpleNamespace(begin_from=lambda places: None, read_ahead=read.append)
    positions = StreamPositions(dealt, SkippedSamples([(0, 2)]))  # type: ignore[arg-type]
    positions.read_ahead(tmp_path, 4)
    (tmp_path / "step-0000000003").mkdir()
    (tmp_path / "step-0000000003" / "manifest.json").write_text("{")
    positions.read_ahead(tmp_path, 4)
    assert [each.tolist() for each in read] == [[2, 3, 4, 5]] * 2
