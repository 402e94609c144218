"""DeepSpeed's universal checkpoints: for each parameter a folder `zero/<name>/` with `fp32.pt` and moments, whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_checkpoint import ReadOptions, agreed_steps, progress_of, settings_of
from megatron_patches.exchange.foreign import ForeignCheckpoint, ForeignProgress, ForeignTensor, whole_shard
from megatron_patches.exchange.safe_pickle import read_pickle
from megatron_patches.exchange.zero_partitions import optimizer_settings

_GLOBAL = "optimizer_state.pt"


def is_universal(path: Path) -> bool:
    """Whether a folder is a universal checkpoint."""
    return (path / "zero").is_dir()


def read_universal(path: Path, options: ReadOptions) -> ForeignCheckpoint:
    """What a universal folder holds; tensors stay in their files until they are read.

    Raises:
        TrainyardError: files are damaged, unsafe, or not what the converter writes.
    """
    folders = sorted({file.parent for file in (path / "zero").rglob("fp32.pt")})
    if not folders:
        raise TrainyardError(f"{path / 'zero'} holds no parameter (no fp32.pt); it is no universal checkpoint")
    tensors: list[ForeignTensor] = []
    steps: dict[str, int] = {}
    for folder in folders:
        name = folder.relative_to(path / "zero").as_posix()
        tensors += _tensors(folder, name, options)
        if (folder / "step.pt").is_file() and not options.weights_only:
            steps[name] = int(read_pickle(folder / "step.pt", options.trust_pickle))
    state, common = _state(path, options), _common(path, options)
    groups = common.get("param_groups", [])
    return ForeignCheckpoint(
        format="deepspeed universal",
        tensors=tensors,
        progress=progress_of(state) if state else ForeignProgress(None),
        optimizer_steps=agreed_steps(steps) if steps else _common_step(common),
        layout={"tensor": 1, "pipeline": 1, "data": 1, "sequence_parallel": False, "zero_stage": 0},
        settings=settings_of(state),
        optimizer=optimizer_settings(groups[0]) if groups else {},
    )


def _tensors(folder: Path, name: str, options: ReadOptions) -> Iterator[ForeignTensor]:
    for file in sorted(folder.glob("*.pt")):
        if file.stem == "step" or (options.weights_only and file.stem != "fp32"):
            continue
        saved: Any = read_pickle(file, options.trust_pickle)
        values = saved.get("param") if isinstance(saved, dict) else saved
        stripped = isinstance(saved, dict) and bool(saved.get("vocab_tensor"))
        if not isinstance(values, Tensor):
            raise TrainyardError(f"{file} holds no tensor; it was not written by DeepSpeed's converter")
        kind = "master" if file.stem == "fp32" else file.stem
        yield ForeignTensor(name, kind, (whole_shard(values),), padding_removed=stripped)


def _state(path: Path, options: ReadOptions) -> dict[str, Any]:
    """The first rank's state, which the converter copies; it is not needed where the step is said otherwise."""
    files = sorted(path.glob("mp_rank_*_model_states.pt")) or sorted(path.glob("zero_pp_rank_*_model_states.pt"))
    return read_pickle(files[0], options.trust_pickle) if files else {}


def _common(path: Path, options: ReadOptions) -> dict[str, Any]:
    """What the optimizer's parameters have in common, if it was saved."""
    file = path / "zero" / _GLOBAL
    return {} if options.weights_only or not file.is_file() else read_pickle(file, options.trust_pickle)


def _common_step(common: dict[str, Any]) -> int | None:
    """The count of updates where optimizers keep it by group; converted from ZeRO 3, the first rank's whole state."""
    counted = {f"group {number}": each for number, each in enumerate(common.get("param_groups", []))}
    counted |= common.get("optimizer_state_dict", {}).get("state", {})
    return agreed_steps({str(where): int(each["step"]) for where, each in counted.items() if "step" in each})
