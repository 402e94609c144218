"""The callbacks of a run, in the order in which they hear of events. A new one is a file here and a line below."""

import torch

from data_tools.run_data import RunData
from megatron_patches.callbacks.callback import Callback
from megatron_patches.callbacks.checkpointing import Checkpointing
from megatron_patches.callbacks.console_log import ConsoleLog
from megatron_patches.callbacks.data_wait import DataWait
from megatron_patches.callbacks.event_recorder import EventRecorder
from megatron_patches.callbacks.finite_guard import FiniteGuard
from megatron_patches.callbacks.profiling import Profiling
from megatron_patches.callbacks.spike_watch import SpikeWatch
from megatron_patches.callbacks.stop_on_signal import StopOnSignal
from megatron_patches.callbacks.tensorboard_log import TensorBoardLog
from megatron_patches.callbacks.validation import Validation
from megatron_patches.callbacks.wandb_log import WandbLog
from megatron_patches.events.writing import EventWriter
from megatron_patches.hardware.machines import peak_tflops
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.votes import StepVotes
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import Launch


def build_callbacks(
    config: RunConfig,
    launch: Launch,
    groups: ProcessGroups,
    data: RunData,
    votes: StepVotes,
    checkpointing: Checkpointing,
    events: EventWriter | None,
) -> list[Callback]:
    """Those that act, those that record what the others did (rank 0 has `events`), and the one that may refuse it."""
    acting: list[Callback] = []
    if config.profile is not None:
        acting.append(Profiling(config.profile))  # first: what others do after the last profiled step is not in it
    if config.evaluation is not None:
        acting.append(Validation(config.evaluation, data.validation))
    if config.checkpoint.pin_spikes_above is not None:
        acting.append(SpikeWatch(config.checkpoint.pin_spikes_above, checkpointing))
    acting += [StopOnSignal(votes.ask()), checkpointing]
    recording = _recorders(config, launch, groups, events) if events is not None else []
    return [*acting, *recording, FiniteGuard()]


def _recorders(config: RunConfig, launch: Launch, groups: ProcessGroups, events: EventWriter) -> list[Callback]:
    device = torch.cuda.get_device_name(groups.device) if groups.device.type == "cuda" else ""
    peak = peak_tflops(device, config.training.precision)
    recorders: list[Callback] = [
        EventRecorder(events, sample_gpus=groups.device.type == "cuda" and torch.version.cuda is not None),
        ConsoleLog(launch.run.logs / f"{launch.id}.log", config, peak),
        TensorBoardLog(launch.run.tensorboard),
    ]
    if config.logging.wandb is not None:
        recorders.append(WandbLog(config.logging.wandb))
    return [*recorders, DataWait()]  # last: what it finds of a step is recorded after it
