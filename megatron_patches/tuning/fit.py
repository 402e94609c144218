"""Whether a layout fits a GPU's memory, and the smallest change that makes it fit. Torch-free."""

from collections.abc import Callable

from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.hardware.machines import Hardware
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted, readable
from megatron_patches.tuning.candidates import Candidate, candidates


def fits(config: RunConfig, layout: Layout, memory: int) -> bool:
    """Whether the largest rank's tensors have room in so many bytes."""
    return estimate_memory(config, layout).largest.total <= memory


def smallest_change(
    config: RunConfig, processes: int, gpus_per_node: int, memory: int, seconds: Callable[[Candidate], float]
) -> Candidate | None:
    """The candidate that fits with the fewest keys changed, the fastest of those; None where none fits."""
    now = Candidate.of(config)
    fitting = [
        each
        for each in candidates(config, processes, gpus_per_node)
        if fits(each.applied_to(config), each.layout(processes), memory)
    ]
    return min(fitting, key=lambda each: (len(each.changes(now)), seconds(each)), default=None)


def require_fit(
    config: RunConfig, layout: Layout, hardware: Hardware, gpus_per_node: int, seconds: Callable[[Candidate], float]
) -> None:
    """Raise TrainyardError, with the smallest change that fits, if the run does not."""
    memory = hardware.usable_memory
    largest = estimate_memory(config, layout).largest
    if largest.total <= memory:
        return
    asked = (
        f"{config.name} needs {readable(largest.total)} on the largest rank of stage {largest.stage}, and of a "
        f"{hardware.name}'s {readable(hardware.memory)} tensors can take {readable(memory)}"
    )
    change = smallest_change(config, layout.world_size, gpus_per_node, memory, seconds)
    if change is None:
        raise TrainyardError(
            f"{asked}; no layout on {counted(layout.world_size, 'GPU')} fits: take more GPUs, or larger ones"
        )
    keys = " ".join(f"--{key} {str(value).lower()}" for key, value in change.changes(Candidate.of(config)).items())
    raise TrainyardError(f"{asked}; the smallest change that fits: {keys}")
