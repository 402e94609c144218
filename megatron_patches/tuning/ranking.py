"""Layouts of a run by predicted step time, and why the next ones lose. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.estimate.step_time import Speeds, Work, work_of
from megatron_patches.models.interface.architecture import Device
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted, readable
from megatron_patches.tuning.candidates import Candidate, candidates


@dataclass(frozen=True)
class Ranked:
    """A layout that fits."""

    candidate: Candidate
    work: Work
    memory: int
    """bytes of the largest rank"""
    seconds: float
    """predicted for a step"""


def rank(
    config: RunConfig, processes: int, gpus_per_node: int, memory: int | None, speeds: Speeds, device: Device = "cuda"
) -> list[Ranked]:
    """Every layout that fits in so many bytes (None: all), the fastest first; of equal ones the one with more room.

    Raises:
        TrainyardError: none fits; the one that needs least is named.
    """
    found: list[Ranked] = []
    least: tuple[int, Candidate] | None = None
    for candidate in candidates(config, processes, gpus_per_node):
        changed, layout = candidate.applied_to(config), candidate.layout(processes)
        needs = estimate_memory(changed, layout, device=device).largest.total
        if least is None or needs < least[0]:
            least = needs, candidate
        if memory is None or needs <= memory:
            work = work_of(changed, layout, gpus_per_node, device)
            found.append(Ranked(candidate, work, needs, work.seconds(speeds)))
    if not found:
        assert least is not None and memory is not None
        raise TrainyardError(
            f"{config.name}: no layout on {counted(processes, 'GPU')} fits in {readable(memory)}; the one that needs "
            f"least, {least[1].describe()}, takes {readable(least[0])}: take more GPUs, or larger ones"
        )
    return sorted(found, key=lambda each: (each.seconds, each.memory))


def explain(first: Ranked, other: Ranked, speeds: Speeds) -> str:
    """What costs another layout its time against the first: the kinds of work that make up the difference."""
    ours, theirs = first.work.by_kind(speeds), other.work.by_kind(speeds)
    more = {kind: theirs[kind] - ours[kind] for kind in ours}
    whole = other.seconds - first.seconds
    if whole <= 0.001 * first.seconds:
        return f"as fast; {readable(other.memory)} against {readable(first.memory)}"
    worst = sorted(more, key=lambda kind: -more[kind])[:2]
    shares = [f"{kind} +{more[kind] / first.seconds:.1%}" for kind in worst if more[kind] > 0.1 * whole]
    return f"+{whole / first.seconds:.1%}: {', '.join(shares)}"


def apart(ranked: Sequence[Ranked], count: int) -> list[Ranked]:
    """So many layouts spread over the whole ranking, the first and the last among them: what calibration learns from.

    Of neighbours in the ranking those with other axes than the ones taken come first.
    """
    if len(ranked) <= count:
        return list(ranked)
    indices = [round(number * (len(ranked) - 1) / (count - 1)) for number in range(count)]
    return [ranked[index] for index in indices]
