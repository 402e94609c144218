"""What a step of a run was trained on: its samples, where they lie, and who read them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.opened_sources import OpenedSource
from data_tools.opened_text import OpenedText
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.source import Sample
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted
from tools.run_views.read_order import ReadOrder
from tools.run_views.recorded_steps import LaunchSteps, RecordedStep, config_of, owners, recorded_launches
from tools.run_views.stream_places import stream_places

_RANKS = 1 << 20


@dataclass(frozen=True)
class ReadSample:
    """One sample of a step."""

    place: int
    """in the run's order"""
    source: str
    number: int
    """in the source"""
    dataset: str
    """prefix of the one that it lies in; of raw text what the run calls it"""
    documents: tuple[tuple[int, int], ...]
    """first and last document of each stretch of the dataset that the sample is made of, numbered from 0; none of raw
    text, which is shuffled before it is cut"""
    data_rank: int | None
    """data-parallel rank that read it; None where the layout is not on record"""
    micro_batch: int | None
    """of that rank, from 0"""
    content: Sample


class ReadStep:
    """One step of a run, opened from the records of the launch that trained it last.

    Raises:
        TrainyardError: the step is not on record, or its data is missing or damaged.
    """

    def __init__(self, run: RunFolder, step: int) -> None:
        launches = recorded_launches(run, step)
        found = next(owners(launches, step), None)
        if found is None:
            raise Missing(f"{printable(run.path)} has no record of step {step:,}; {_remedy(run)}")
        self.launch, self.is_present = found
        recorded = self.launch.at(step)
        assert recorded is not None
        self.recorded: RecordedStep = recorded
        self.config: RunConfig = config_of(run, self.launch)
        self.order = ReadOrder(self.config, stream_places(run))
        self.layout = _layout(self.launch)

    @property
    def tokenizer(self) -> Path:
        """The run's."""
        return CHECKOUT / self.config.data.tokenizer

    def samples(self, rank: int | None) -> Iterator[ReadSample]:
        """The samples of the step in the run's order, or those that a rank reads, in its order.

        Raises:
            TrainyardError: the launch has no such rank, or its layout is not on record.
        """
        size, micro_batch = self.recorded.size, self.config.training.micro_batch_size
        chosen = np.arange(size)
        if rank is not None:
            layout = self._require_layout(rank)
            data = layout.coordinates(rank).data
            # what a sampler of the same shape reads of the numbers from 0
            chosen = np.concatenate(BatchSampler(lambda _: size, micro_batch, data, layout.data).micro_batches(0))
        for position in chosen.tolist():
            places, located, contents = self.order.read(self.recorded.first + position, 1)
            source = self.order.data.sources[int(located.source[0])]
            number = int(located.number[0])
            dataset, documents = _lies_in(source, number)
            turn, data_rank = None, None
            if self.layout is not None:
                turn, data_rank = divmod(position // micro_batch, self.layout.data)
            yield ReadSample(int(places[0]), source.name, number, dataset, documents, data_rank, turn, contents[0])

    def _require_layout(self, rank: int) -> Layout:
        if self.layout is None:
            raise TrainyardError(
                f"launch {self.launch.launch} did not record its layout, so what rank {rank} read is not known; leave "
                "out --rank"
            )
        if rank >= self.layout.world_size:
            raise TrainyardError(
                f"launch {self.launch.launch} had {counted(self.layout.world_size, 'rank')}, numbered from 0: there is "
                f"no rank {rank}"
            )
        return self.layout


def _lies_in(source: OpenedSource | OpenedText, number: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Dataset and documents of a sample."""
    if isinstance(source, OpenedText):
        return source.text.path, ()
    shard, stretches = source.find(number)
    return str(shard.prefix), tuple(documents_of(shard.dataset, *each) for each in stretches)


def documents_of(dataset: IndexedDataset, first: int, end: int) -> tuple[int, int]:
    """First and last document of a stretch of tokens [first, end), by binary search in the index."""
    documents = range(dataset.number_of_documents)
    start = bisect_right(documents, first, key=dataset.document_token_offset) - 1
    last = bisect_left(documents, end, key=dataset.document_token_offset) - 1
    return start, max(start, last)


def _layout(launch: LaunchSteps) -> Layout | None:
    sizes = [whole_of(launch.layout.get(axis), _RANKS) for axis in ("tensor", "pipeline", "data")]
    if not all(sizes):
        return None
    tensor, pipeline, data = (size or 1 for size in sizes)
    return Layout(tensor, pipeline, data)


def _remedy(run: RunFolder) -> str:
    ends = [int(each.steps[-1]) for each in recorded_launches(run) if len(each.steps)]
    return f"it has steps 1 to {max(ends):,}" if ends else "it was not trained yet"
