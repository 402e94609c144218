"""What a run asks of the device that it runs on, as far as that can be told without torch."""

from collections.abc import Iterator, Sequence

from megatron_patches.errors import refuse
from megatron_patches.hardware.machines import hardware_of_device
from megatron_patches.parallel.flash_attn_extra import flash_attn_problems
from megatron_patches.run.config import RunConfig


def check_device(config: RunConfig, gpu: bool, models: Sequence[str]) -> None:
    """Raise TrainyardError with every one of `device_problems`."""
    refuse(device_problems(config, gpu, models))


def device_problems(config: RunConfig, gpu: bool, models: Sequence[str]) -> Iterator[str]:
    """Why a machine with or without a `gpu`, or with GPUs of these names, cannot run this.

    What is not to be known here is asked by the ranks themselves (`start_process_groups`).
    """
    if config.training.precision == "fp16" and not gpu:
        yield (
            "training.precision fp16 needs a GPU, and this machine has none: a CPU is no faster with it, and pays for "
            "its small range with loss scaling; use bf16 or fp32"
        )
    if config.data.loader.pin_memory is True and not gpu:
        yield (
            "data.loader.pin_memory true needs a GPU, which copies from such memory, and this machine has none; use "
            "auto, which pins on GPUs alone"
        )
    yield from _fp8(config, models)
    yield from _compilation(config, gpu)
    yield from _attention_kernel(config, gpu)


def _fp8(config: RunConfig, models: Sequence[str]) -> Iterator[str]:
    known = [found for found in map(hardware_of_device, models) if found is not None]
    without = sorted({gpu.name for gpu in known if "fp8" not in gpu.peaks})
    if config.training.fp8 != "none" and without:
        yield (
            "training.fp8 needs GPUs of compute capability 8.9 or more (Ada, Hopper, Blackwell), and this machine has "
            f"{', '.join(without)}, which multiplies no float8; use --training.fp8 none, which keeps bf16"
        )


def _compilation(config: RunConfig, gpu: bool) -> Iterator[str]:
    """How blocks are compiled, where nothing says that they are and they are not."""
    zero_stage = config.parallel.zero_stage
    if config.training.compile is not None or (gpu and zero_stage < 3):
        return
    why = "under ZeRO 3" if gpu else "on a CPU"
    remedy = "parallel.zero_stage 2" if zero_stage == 3 else "--training.compile true"
    for key, value in config.training.compile_settings.items():
        yield (
            f"training.{key} {value} has no effect {why}, where blocks are not compiled unless training.compile says "
            f"so; remove it, or use {remedy}"
        )


def _attention_kernel(config: RunConfig, gpu: bool) -> Iterator[str]:
    kernel, training = config.training.attention_kernel, config.training
    if kernel in ("cudnn", "efficient") and not gpu:
        yield (
            f"training.attention_kernel {kernel} needs a GPU, and this machine has none; a CPU has flash and math: use "
            "one of them, or auto"
        )
    if kernel == "flash" and not gpu and config.model.weights_dropped > 0:
        yield (
            f"training.attention_kernel flash drops nothing on a CPU, and model.attention_dropout is "
            f"{config.model.weights_dropped:g}; use auto or math, or --model.attention_dropout 0"
        )
    if kernel in ("flash", "cudnn") and gpu and training.precision == "fp32":
        yield (
            f"training.attention_kernel {kernel} takes 16 bits on a GPU, and training.precision is fp32; use "
            "efficient, math or auto, or precision bf16"
        )
    if kernel == "flash_attn":
        yield from flash_attn_problems(gpu, training.precision == "fp32")
