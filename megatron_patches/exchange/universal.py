"""DeepSpeed's universal checkpoints: for each parameter a folder `zero/<name>/` with `fp32.pt` and moments, whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from data_tools.errors import TrainyardError
from megatron_patches.exchange.deepspeed_checkpoint import ReadOptions, agreed_steps, progress_of, settings_of
from megatron_patches.exchange.foreign import ForeignCheckpoint, ForeignProgress, ForeignTensor, whole_shard
from megatron_patches.exchange.safe_pickle import read_pickle

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
    state = _state(path, options)
    return ForeignCheckpoint(
        format="deepspeed universal",
        tensors=tensors,
        progress=progress_of(state) if state else ForeignProgress(None),
        optimizer_steps=agreed_steps(steps) if steps else _global_step(path, options),
        layout={"tensor": 1, "pipeline": 1, "data": 1, "sequence_parallel": False, "zero_stage": 0},
        settings=settings_of(state),
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
        yield ForeignTensor(name, kind, values.dtype, (whole_shard(values),), padding_removed=stripped)


def _state(path: Path, options: ReadOptions) -> dict[str, Any]:
    """The first rank's state, which the converter copies; it is not needed where the step is said otherwise."""
    files = sorted(path.glob("mp_rank_*_model_states.pt")) or sorted(path.glob("zero_pp_rank_*_model_states.pt"))
    return read_pickle(files[0], options.trust_pickle) if files else {}


def _global_step(path: Path, options: ReadOptions) -> int | None:
    """Where optimizers count updates by group, not by parameter."""
    file = path / "zero" / _GLOBAL
    if options.weights_only or not file.is_file():
        return None
    groups = read_pickle(file, options.trust_pickle).get("param_groups", [])
    return agreed_steps(
        {f"group {number}": int(group["step"]) for number, group in enumerate(groups) if "step" in group}
    )
