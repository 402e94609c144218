"""From consumed samples to micro-batches, and from micro-batches to the share each target has in the loss."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blended import TrainingSamples
from data_tools.samples.delivered import as_doubles, from_doubles, summed
from data_tools.samples.source import Sample, SampleSource
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.errors import TrainyardError
from megatron_patches.objectives.build import Objective
from megatron_patches.parallel.process_groups import ProcessGroups


@dataclass(frozen=True)
class _Read:
    """What a rank has read for a step."""

    micro_batches: list[MicroBatch]
    hash: int
    """of its samples"""


class TrainingBatches:
    """The micro-batches of this rank for the step that starts at a number of consumed samples.

    The next step's samples are read in a thread while the current step runs; what is read depends on the number of
    samples alone.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        sampler: BatchSampler,
        objective: Objective,
        vocab_size: int,
        groups: ProcessGroups,
    ) -> None:
        self.objective = objective
        self._samples = samples
        self._sampler = sampler
        self._vocab_size = vocab_size
        self._groups = groups
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training-data")
        self._ahead: tuple[int, Future[_Read]] | None = None
        self.delivered = 0
        """hash of the samples that the last step's readers delivered on all ranks (data_tools/samples/delivered.py)"""

    def at(self, consumed_samples: int) -> list[MicroBatch]:
        """The global batch's part of this rank, weights divided by the global count of targets."""
        if self._ahead is not None and self._ahead[0] == consumed_samples:
            read = self._ahead[1].result()
        else:
            read = self._read(consumed_samples)
        following = consumed_samples + self._sampler.batch_size_at(consumed_samples)
        self._ahead = (following, self._reader.submit(self._read, following))
        targets, self.delivered = of_all_ranks(_targets(read.micro_batches), read.hash, self._groups)
        return _shared(read.micro_batches, targets, self._groups)

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self, consumed_samples: int) -> _Read:
        by_batch = self._sampler.micro_batches(consumed_samples)
        places = np.concatenate(by_batch)
        located = self._samples.locate(places)
        read, micro_batches = self._samples.read(located), []
        delivered = summed(self._samples.hashes(places, located, read)) if _counts_here(self._groups) else 0
        for first, of_batch in zip(range(0, len(read), len(by_batch[0])), by_batch, strict=True):
            part = slice(first, first + len(of_batch))
            items = stacked(read[part], located.number[part], self._vocab_size)
            micro_batches.append(self.objective(items, of_batch))
        return _Read(micro_batches, delivered)


def validation_micro_batches(
    source: SampleSource,
    objective: Objective,
    samples: int,
    micro_batch_size: int,
    vocab_size: int,
    groups: ProcessGroups,
) -> list[MicroBatch]:
    """The first samples of a source, this rank's part; where they do not divide, rows of weight 0 fill up.

    A sample's number is its own in the source, so that a prefix is the same in every validation.
    """
    data_parallel = groups.layout.data
    count = -(-samples // (micro_batch_size * data_parallel))
    micro_batches = []
    for number in range(count):
        first = (number * data_parallel + groups.coordinates.data) * micro_batch_size
        wanted = np.arange(first, first + micro_batch_size)
        numbers = np.minimum(wanted, samples - 1)
        items = [source[number] for number in numbers.tolist()]
        batch = objective(stacked(items, numbers, vocab_size), numbers)
        real = torch.from_numpy(wanted < samples).unsqueeze(1)
        micro_batches.append(replace(batch, weights=batch.weights * real))
    return share_targets(micro_batches, groups)


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


def share_targets(micro_batches: Sequence[MicroBatch], groups: ProcessGroups) -> list[MicroBatch]:
    """Divide every weight by the sum of all weights, over micro-batches and data-parallel ranks: by `targets`.

    So the loss is a mean over targets whatever the layout, also where ranks have different numbers of them.
    """
    targets, _ = of_all_ranks(_targets(micro_batches), 0, groups)
    return _shared(micro_batches, targets, groups)


def _targets(micro_batches: Sequence[MicroBatch]) -> torch.Tensor:
    """The sum of this rank's weights, a double."""
    return torch.stack([batch.weights.double().sum() for batch in micro_batches]).sum()


def _counts_here(groups: ProcessGroups) -> bool:
    """Whether this rank speaks for those that read the same samples: the other tensor-parallel ranks and stages."""
    return groups.coordinates.tensor == 0 and groups.coordinates.pipeline == 0


def of_all_ranks(targets: torch.Tensor, delivered: int, groups: ProcessGroups) -> tuple[torch.Tensor, int]:
    """Sums over data-parallel ranks, in one message: of targets, and of hashes modulo 2**64.

    Targets come first: gloo adds up each element in an order that follows from its position, so their sum is the double
    that it is without the others.
    """
    if groups.layout.data == 1:
        return targets, delivered
    sums = torch.stack([targets, *(targets.new_tensor(part) for part in as_doubles(delivered))])
    sums = sums if _counts_here(groups) else torch.zeros_like(sums)
    dist.all_reduce(sums, group=groups.control_group)
    return sums[0], from_doubles(sums[1].item(), sums[2].item())


def _shared(micro_batches: Sequence[MicroBatch], total: torch.Tensor, groups: ProcessGroups) -> list[MicroBatch]:
    if total <= 0:  # the same on every rank
        raise TrainyardError("a global batch has no target at all; look at the data and the objective's masks")
    shared = [
        replace(batch, weights=(batch.weights.double() / total).float(), targets=total.item())
        for batch in micro_batches
    ]
    return [batch.pinned() for batch in shared] if groups.device.type == "cuda" else shared
