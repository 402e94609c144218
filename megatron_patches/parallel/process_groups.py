"""The ranks of one layout and the groups they talk in.

The order of ranks is (pipeline, data, tensor), the same in megatron-core and in DeepSpeed, so the groups that each
makes for itself hold the same ranks.
"""

import datetime
import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from megatron_patches.megatron_core_patches.cpu_as_current_device import use_cpu_where_there_is_no_cuda
from megatron_patches.parallel.attention_kernels import require_attention_kernel
from megatron_patches.parallel.fp8 import require_fp8_units
from megatron_patches.parallel.kernels import USUAL_KERNELS, Kernels
from megatron_patches.parallel.layout import Coordinates, Layout
from megatron_patches.parallel.meeting import meet
from megatron_patches.parallel.megatron_core import parallel_state

TIMEOUT = datetime.timedelta(minutes=30)  # of one collective: the slowest, a save, must fit in it


@dataclass(frozen=True)
class ProcessGroups:
    """This process's place in the layout, its device, and its communicators."""

    layout: Layout
    rank: int
    coordinates: Coordinates
    device: torch.device
    dtype: torch.dtype
    """type of weights and activations"""
    kernels: Kernels
    """what multiplies them"""
    tensor_group: dist.ProcessGroup
    data_group: dist.ProcessGroup
    model_group: dist.ProcessGroup
    """all ranks that together hold one copy of the model"""
    stage_group: dist.ProcessGroup
    """all ranks of this pipeline stage: tensor x data"""
    control_group: dist.ProcessGroup
    """all ranks, over the CPU: verdicts and manifests, never gradients"""
    saving_group: dist.ProcessGroup
    """the same for the thread that writes checkpoints beside training: a group takes messages of one thread only"""

    def from_rank_0(self, value: Any) -> Any:
        """Rank 0's value on every rank: network file systems may show ranks different things, so one looks for all."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control_group)
        return box[0]

    @property
    def last_stage(self) -> bool:
        return self.coordinates.pipeline == self.layout.pipeline - 1


def start_process_groups(
    layout: Layout,
    dtype: torch.dtype,
    alone: bool = False,
    kernels: Kernels = USUAL_KERNELS,
    store: dist.Store | None = None,
) -> ProcessGroups:
    """Join the other ranks (environment variables say where) and make the layout's groups.

    A process that is `alone` needs no such variables and opens no port; one that has opened a `store` for all of them
    already waits for the others there.

    Raises RuntimeError if the world has another size than the layout (the launcher checks that before), and
    TrainyardError if this device does not have the kernels, or the ranks do not find each other.
    """
    cuda = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if kernels.fp8 != "none":
        require_fp8_units(device)
    require_attention_kernel(kernels.attention, device, dtype)
    if alone:
        dist.init_process_group(
            "nccl" if cuda else "gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=TIMEOUT
        )
    else:
        store = store or meet()
        store.set_timeout(TIMEOUT)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]), timeout=TIMEOUT,
        )  # fmt: skip
    if dist.get_world_size() != layout.world_size:
        raise RuntimeError(f"{dist.get_world_size()} processes were started for a layout of {layout.world_size}")
    use_cpu_where_there_is_no_cuda()
    # megatron-core's sequence parallelism calls two functions by the names that torch 2.13 has given up: a warning each
    # time, six of them in a launch's first lines
    warnings.filterwarnings("ignore", r"`torch\.distributed\.(reduce_scatter|all_gather_into)_tensor`", FutureWarning)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor, pipeline_model_parallel_size=layout.pipeline
    )
    control = dist.new_group(backend="gloo", timeout=TIMEOUT) if cuda else dist.group.WORLD
    saving = dist.new_group(backend="gloo", timeout=TIMEOUT)
    assert control is not None and saving is not None
    return ProcessGroups(
        layout=layout,
        rank=dist.get_rank(),
        coordinates=layout.coordinates(dist.get_rank()),
        device=device,
        dtype=dtype,
        kernels=kernels,
        tensor_group=parallel_state.get_tensor_model_parallel_group(),
        data_group=parallel_state.get_data_parallel_group(),
        model_group=parallel_state.get_model_parallel_group(),
        stage_group=parallel_state.get_tensor_and_data_parallel_group(),
        control_group=control,
        saving_group=saving,
    )


def stop_process_groups() -> None:
    """Leave all groups."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


class ModelParallelUnit:
    """What DeepSpeed asks of a "model parallel unit", for a plain module: model parallel means tensor parallel.

    parallel_state itself has no `get_model_parallel_world_size`.
    """

    def __init__(self, groups: ProcessGroups) -> None:
        self._groups = groups

    def get_model_parallel_rank(self) -> int:
        return self._groups.coordinates.tensor

    def get_model_parallel_world_size(self) -> int:
        return self._groups.layout.tensor

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        return self._groups.tensor_group

    def get_data_parallel_rank(self) -> int:
        return self._groups.coordinates.data

    def get_data_parallel_world_size(self) -> int:
        return self._groups.layout.data

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        return self._groups.data_group
