"""From consumed samples to micro-batches, and from micro-batches to the share each target has in the loss."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from data_tools.loader_config import LoaderConfig
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.delivered import as_doubles, from_doubles, summed
from data_tools.samples.source import Sample, SampleSource
from data_tools.samples.step_samples import SamplesByStep, StepSamples
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.errors import TrainyardError
from megatron_patches.objectives.objective import Objective
from megatron_patches.objectives.read_ahead import ReadAhead
from megatron_patches.parallel.process_groups import ProcessGroups

_LOOK_SECONDS = 0.001
"""between two looks whether a GPU still computes"""


class _Read(NamedTuple):
    """What a rank has read for a step."""

    micro_batches: list[MicroBatch]
    hash: int
    """of its samples"""
    texts: int
    """places of its samples that hold text"""
    places: int
    """of one sample"""


class _Ahead(NamedTuple):
    consumed_samples: int
    read: "Future[_Read]"


class TrainingBatches:
    """The micro-batches of this rank for the step that starts at a number of consumed samples.

    The next steps' samples are read in threads while the current step runs; what is read depends on the number of
    samples alone. What is read ahead is a function of the steps that were asked for, so that all ranks that train the
    same steps prepare the same ones (`data_tools/samples/step_samples.py`).

    Args:
        end: consumed samples at the end of the run; no step from there on is read ahead.
    """

    def __init__(
        self,
        samples: SamplesByStep,
        sampler: BatchSampler,
        objective: Objective,
        vocab_size: int,
        groups: ProcessGroups,
        loader: LoaderConfig = LoaderConfig(),  # noqa: B008  frozen
        end: int | None = None,
    ) -> None:
        self.objective = objective
        self._samples = samples
        self._sampler = sampler
        self._vocab_size = vocab_size
        self._groups = groups
        self._prefetch = loader.prefetch
        self._pinned = is_pinned(loader, groups.device)
        self._end = end
        self._ahead: deque[_Ahead] = deque()
        self._reader = ReadAhead(self._prepare, self._read, loader.workers)
        self.delivered = 0
        """hash of the samples that the last step's readers delivered on all ranks (data_tools/samples/delivered.py)"""
        self.waited_seconds = 0.0
        """that the last step waited for samples: most of any data-parallel rank"""
        self.padding = 0.0
        """share of the places of the last step's samples, on all ranks, that hold no text"""

    def at(self, consumed_samples: int) -> list[MicroBatch]:
        """The global batch's part of this rank, weights divided by the global count of targets."""
        read = self._ordered(consumed_samples)
        waited = self._wait_for(read)
        here = read.result()
        totals = of_all_ranks(_targets(here.micro_batches), here.hash, here.texts, waited, self._groups)
        self.delivered, self.waited_seconds = totals.delivered, totals.waited_seconds
        self.padding = 1.0 - totals.texts / (here.places * self._sampler.batch_size_at(consumed_samples))
        return _shared(here.micro_batches, totals.targets, self._pinned)

    def rest(self) -> None:
        """Between two steps, on every rank: drop what is read ahead and end the threads; the next step begins again."""
        self._drop()
        self._reader.rest()
        self._samples.rest()

    def close(self) -> None:
        """Stop reading ahead; other ranks may be gone."""
        self._drop()
        self._reader.close()

    def _ordered(self, consumed_samples: int) -> "Future[_Read]":
        """A step, which is being read or will be next; steps that follow on it are read after it."""
        if not self._ahead or self._ahead[0].consumed_samples != consumed_samples:
            self._drop()
            self._order(consumed_samples)
        last = self._ahead[-1].consumed_samples
        while len(self._ahead) <= self._prefetch:
            last += self._sampler.batch_size_at(last)
            if self._end is not None and last >= self._end:
                break
            self._order(last)
        return self._ahead.popleft().read

    def _order(self, consumed_samples: int) -> None:
        self._ahead.append(_Ahead(consumed_samples, self._reader.order(consumed_samples)))

    def _drop(self) -> None:
        while self._ahead:
            self._ahead.popleft().read.cancel()

    def _wait_for(self, read: "Future[_Read]") -> float:
        """Seconds until it is read, or has failed, in which the device has nothing to do."""
        while not read.done() and _computes(self._groups.device):
            wait([read], _LOOK_SECONDS)
        started = perf_counter()
        wait([read])
        return perf_counter() - started

    def _prepare(self, consumed_samples: int) -> StepSamples:
        return self._samples.prepare(self._sampler.places(consumed_samples))

    def _read(self, consumed_samples: int, samples: StepSamples) -> _Read:
        by_batch = self._sampler.micro_batches(consumed_samples)
        places = np.concatenate(by_batch)
        located = samples.locate(places)
        read, micro_batches = samples.read(located), []
        delivered = summed(samples.hashes(places, located, read)) if _counts_here(self._groups) else 0
        for first, of_batch in zip(range(0, len(read), len(by_batch[0])), by_batch, strict=True):
            part = slice(first, first + len(of_batch))
            items = stacked(read[part], located.number[part], self._vocab_size)
            micro_batches.append(self.objective(items, of_batch))
        return _Read(micro_batches, delivered, sum(map(_text_places, read)), len(read[0]["tokens"]))


def is_pinned(loader: LoaderConfig, device: torch.device) -> bool:
    """Whether batches for a device are kept in pinned memory."""
    return device.type == "cuda" if loader.pin_memory == "auto" else loader.pin_memory


def _computes(device: torch.device) -> bool:
    """Whether a GPU is still at what it was given: a wait for samples costs nothing meanwhile. A CPU is not."""
    return device.type == "cuda" and not torch.cuda.current_stream(device).query()


def validation_micro_batches(
    source: SampleSource,
    objective: Objective,
    samples: int,
    micro_batch_size: int,
    vocab_size: int,
    groups: ProcessGroups,
    pinned: bool = False,
) -> list[MicroBatch]:
    """`first_micro_batches` of this data-parallel rank, their targets shared among all."""
    rank = (groups.coordinates.data, groups.layout.data)
    micro_batches = list(first_micro_batches(source, objective, samples, micro_batch_size, vocab_size, rank))
    return share_targets(micro_batches, groups, pinned)


def first_micro_batches(
    source: SampleSource,
    objective: Objective,
    samples: int,
    micro_batch_size: int,
    vocab_size: int,
    rank: tuple[int, int] = (0, 1),
) -> Iterator[MicroBatch]:
    """The first samples of a source, the part of one rank, (its number, of how many); all have as many micro-batches.
    Where samples do not divide, rows of weight 0 fill up.

    A sample's number is its own in the source, so that a prefix is the same in every validation.
    """
    here, ranks = rank
    for number in range(-(-samples // (micro_batch_size * ranks))):
        first = (number * ranks + here) * micro_batch_size
        wanted = np.arange(first, first + micro_batch_size)
        numbers = np.minimum(wanted, samples - 1)
        items = [source[number] for number in numbers.tolist()]
        batch = objective(stacked(items, numbers, vocab_size), numbers)
        real = torch.from_numpy(wanted < samples).unsqueeze(1)
        yield replace(batch, weights=batch.weights * real)


def has_target(source: SampleSource, objective: Objective, samples: int, vocab_size: int) -> bool:
    """Whether any of the first samples of a source has a target; reads up to the first that has, as every rank does."""
    for number in range(samples):
        numbers = np.array([number])
        if bool((objective(stacked([source[number]], numbers, vocab_size), numbers).weights > 0).any()):
            return True
    return False


def stacked(items: Sequence[Sample], numbers: NDArray[np.int64], vocab_size: int) -> dict[str, torch.Tensor]:
    """Samples stacked, each array by its name; a sample that lacks one has what that means (`_array`).

    Raises:
        TrainyardError: an id beyond the vocabulary; the sample is named by its number.
    """
    together = {
        name: np.stack([_array(item, name) for item in items]) for name in {key for each in items for key in each}
    }
    rows = together["tokens"]
    largest = int(rows.max())
    if largest >= vocab_size or int(rows.min()) < 0:
        row = int(np.argmax(rows.max(axis=1)))
        raise TrainyardError(
            f"sample {numbers[row]} of the dataset holds token id {largest}, the model's vocabulary has {vocab_size}; "
            "verify the dataset with tools/dataset verify"
        )
    return {name: torch.from_numpy(values) for name, values in together.items()}


def _array(item: Sample, name: str) -> NDArray[np.int64]:
    """An array of a sample; where it has none, what that means: one text, all of it to be predicted."""
    found = item.get(name)
    if found is not None:
        return found
    return np.full_like(item["tokens"], {"segments": 0, "answers": 1}[name])


def _text_places(item: Sample) -> int:
    """Places of a sample that hold text."""
    segments = item.get("segments")
    return len(item["tokens"]) if segments is None else int(np.count_nonzero(segments >= 0))


def share_targets(micro_batches: Sequence[MicroBatch], groups: ProcessGroups, pinned: bool = False) -> list[MicroBatch]:
    """Divide every weight by the sum of all weights, over micro-batches and data-parallel ranks: by `targets`.

    So the loss is a mean over targets whatever the layout, also where ranks have different numbers of them.
    """
    return _shared(micro_batches, of_all_ranks(_targets(micro_batches), 0, 0, 0.0, groups).targets, pinned)


def _targets(micro_batches: Sequence[MicroBatch]) -> torch.Tensor:
    """The sum of this rank's weights, a double."""
    return torch.stack([batch.weights.double().sum() for batch in micro_batches]).sum()


def _counts_here(groups: ProcessGroups) -> bool:
    """Whether this rank speaks for those that read the same samples: the other tensor-parallel ranks and stages."""
    return groups.coordinates.tensor == 0 and groups.coordinates.pipeline == 0


class Totals(NamedTuple):
    """What data-parallel ranks found together."""

    targets: torch.Tensor
    """sum, a double"""
    delivered: int
    """sum of hashes modulo 2**64"""
    texts: int
    """sum of places that hold text"""
    waited_seconds: float
    """the most"""


def of_all_ranks(targets: torch.Tensor, delivered: int, texts: int, waited: float, groups: ProcessGroups) -> Totals:
    """What this rank found, put together with what the others did, in one message that adds up.

    Targets come first: gloo adds up each element in an order that follows from its position, so their sum is the double
    that it is without the others. Each data-parallel rank has a place for its seconds, where the others add 0.
    """
    if groups.layout.data == 1:
        return Totals(targets, delivered, texts, waited)
    seconds = targets.new_zeros(groups.layout.data)
    seconds[groups.coordinates.data] = waited
    counts = (*as_doubles(delivered), float(texts))  # exact in a double up to 2**53
    sums = torch.cat([torch.stack([targets, *(targets.new_tensor(part) for part in counts)]), seconds])
    sums = sums if _counts_here(groups) else torch.zeros_like(sums)
    dist.all_reduce(sums, group=groups.control_group)
    return Totals(sums[0], from_doubles(sums[1].item(), sums[2].item()), int(sums[3].item()), sums[4:].max().item())


def _shared(micro_batches: Sequence[MicroBatch], total: torch.Tensor, pinned: bool) -> list[MicroBatch]:
    if total <= 0:  # the same on every rank
        raise TrainyardError("a global batch has no target at all; look at the data and the objective's masks")
    shared = [
        replace(batch, weights=(batch.weights.double() / total).float(), targets=total.item())
        for batch in micro_batches
    ]
    return [batch.pinned() for batch in shared] if pinned else shared
