"""How long a step takes on a layout: seconds as a sum of kinds of work, each with a speed. Torch-free.

The amounts follow from the configuration; the speeds are measured (`tuning/calibration.py`) or, where nothing was
measured on a kind of GPU, taken from its data sheet with the shares of it that are usual.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from megatron_patches.estimate.activations import activations
from megatron_patches.estimate.communication import busiest_blocks, estimate_traffic
from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.hardware.machines import Hardware, peak_of
from megatron_patches.models.interface.architecture import Device
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig

KINDS = ("compute", "activations", "optimizer", "messages inside", "messages between", "message count", "micro-batch")
"""FLOPs, bytes, bytes, bytes, bytes, messages, passes of a block: what a step is made of, and in which units"""

# Shares of a data sheet's figure that well-filled kernels reach: matrices 0.6, memory 0.7, links 0.7; a message takes
# 20 microseconds, a block's launches 100.
_REACHED = {"compute": 0.6, "activations": 0.7, "optimizer": 0.7, "messages inside": 0.7}
_SECONDS_EACH = {"message count": 20e-6, "micro-batch": 100e-6}
_BETWEEN_NODES = 25e9
"""bytes/s of one GPU's share of a 200 Gbit/s adapter"""


@dataclass(frozen=True)
class Work:
    """What the busiest rank does in a step, by kind; those of a pipeline's stages include the wait for each other."""

    amounts: Mapping[str, float]

    def seconds(self, speeds: "Speeds") -> float:
        """The sum over kinds of amount x seconds for one."""
        return sum(amount * speeds.seconds_each[kind] for kind, amount in self.amounts.items())

    def by_kind(self, speeds: "Speeds") -> dict[str, float]:
        """Its terms, seconds."""
        return {kind: amount * speeds.seconds_each[kind] for kind, amount in self.amounts.items()}


@dataclass(frozen=True)
class Speeds:
    """Seconds for one FLOP, byte, message and pass of a block."""

    seconds_each: Mapping[str, float]
    origin: str
    """where they come from, for people"""


def work_of(config: RunConfig, layout: Layout, gpus_per_node: int, device: Device = "cuda") -> Work:
    """The amounts of one step."""
    training = config.training
    micro_batches = layout.micro_batches(training)
    stage = estimate_memory(config, layout, device=device).largest
    # A stage computes for m micro-batches and waits for p - 1 more: each kind of its work counts m + p - 1 times.
    turns = micro_batches + layout.pipeline - 1
    tokens = training.micro_batch_size * config.lengths.counted
    model_share = layout.tensor * layout.pipeline
    flops = config.flops.computed * tokens / model_share
    blocks = busiest_blocks(config, layout)
    # with recomputation as much is written as without it, and once more read
    written = activations(config, layout, "none", device=device)
    again = {"none": 1.0, "selective": 1.2, "full": 1.5}[training.recomputation]
    kept = sum(count * written.blocks[stack] for stack, count in blocks.items())
    touched = (kept * again + written.logits + written.loss) * turns
    traffic = estimate_traffic(config, layout, stage, gpus_per_node)
    sent = {
        link: sum(each.bytes for each in traffic if each.link == link) for link in ("inside a node", "between nodes")
    }
    stretch = turns / micro_batches if layout.pipeline > 1 else 1.0
    return Work(
        {
            "compute": flops * turns,
            "activations": float(touched),
            "optimizer": float(stage.weights + stage.optimizer + stage.gradients + 2 * stage.buffers),
            "messages inside": sent["inside a node"] * stretch,
            "messages between": sent["between nodes"] * stretch,
            "message count": sum(each.messages for each in traffic) * stretch,
            "micro-batch": float(sum(blocks.values()) * turns * (2 if training.recomputation == "full" else 1)),
        }
    )


def data_sheet_speeds(hardware: Hardware, precision: str) -> Speeds | None:
    """Speeds of a GPU that nothing was measured on; None where it does not have the precision."""
    peak = peak_of(hardware, precision)
    if peak is None:
        return None
    best = {
        "compute": peak * 1e12,
        "activations": hardware.memory_bandwidth,
        "optimizer": hardware.memory_bandwidth,
        "messages inside": hardware.link,
    }
    each = {kind: 1 / (best[kind] * reached) for kind, reached in _REACHED.items()}
    each |= _SECONDS_EACH | {"messages between": 1 / _BETWEEN_NODES}
    return Speeds(each, f"{hardware.name}'s data sheet at usual shares of it, not measured")
