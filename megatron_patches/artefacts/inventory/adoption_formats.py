"""Recognising foreign checkpoints by the names of their files: DeepSpeed's and Megatron's folders as BigScience wrote
them, PyTorch Lightning's `.ckpt` files, and transformers' folders. Nothing is unpickled.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from megatron_patches.errors import Missing, TrainyardError

_DEEPSPEED = re.compile(r"global_step(\d+)")
_MEGATRON = re.compile(r"iter_(\d{7})")
_TRANSFORMERS = re.compile(r"checkpoint-(\d+)")
_RANKED = re.compile(r"mp_rank_(\d+)(?:_(\d+))?")
_LAYER = re.compile(r"layer_\d+-model_(\d+)-model_states\.pt")
_ZERO = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt")
_STEP = re.compile(r"(?:^|[-_])(?:step|epoch=\d+-step)[-=](\d+)")
_METRIC = re.compile(r"[-_]([A-Za-z][A-Za-z_]*)[-=](\d+(?:\.\d+)?(?:e-?\d+)?)(?=[-_.]|$)")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
_MARKS = ("latest", "latest_checkpointed_iteration.txt")


@dataclass(frozen=True)
class ForeignCheckpoint:
    """One checkpoint that something else wrote."""

    path: Path
    """its folder, or its one file"""
    format: str
    """deepspeed, megatron, lightning or transformers"""
    step: int | None
    files: list[Path]
    content: str = "full"
    """full, or weights where there is no optimizer's state"""
    metrics: dict[str, float] = field(default_factory=dict)
    """what the name says, such as val_ppl"""
    layout: dict[str, int] = field(default_factory=dict)
    """as far as the names of files tell"""

    @property
    def root(self) -> Path:
        """Folder that its files' paths start from."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def name(self) -> str:
        """Name of its folder or file."""
        return self.path.name


def find_checkpoints(folder: Path) -> list[ForeignCheckpoint]:
    """The checkpoints in a folder, or the folder itself if it is one; by step.

    Raises:
        TrainyardError: there is none, or the folder cannot be read.
    """
    if not folder.exists():
        raise Missing(f"{folder} does not exist; name the folder, or the file, that is to be adopted")
    found = list(_look(folder, depth=0))
    if not found:
        raise Missing(
            f"{folder} holds no checkpoint of a known format: global_stepN/ (DeepSpeed), iter_NNNNNNN/ (Megatron), "
            "*.ckpt (Lightning), or a folder with config.json and model.safetensors or pytorch_model.bin (transformers)"
        )
    return sorted(found, key=lambda each: (each.step if each.step is not None else -1, each.name))


def _look(path: Path, depth: int) -> Iterator[ForeignCheckpoint]:
    if path.is_file():
        if path.suffix == ".ckpt":
            yield _lightning(path)
        return
    if (one := _as_folder(path)) is not None:
        yield one
    elif depth < 3:
        for inner in sorted(path.iterdir()):
            yield from _look(inner, depth + 1)


def _as_folder(folder: Path) -> ForeignCheckpoint | None:
    if found := _DEEPSPEED.fullmatch(folder.name):
        return _ranked(folder, "deepspeed", int(found[1]))
    if found := _MEGATRON.fullmatch(folder.name):
        return _ranked(folder, "megatron", int(found[1]))
    if (folder / "config.json").is_file() and any((folder / name).is_file() for name in _WEIGHTS):
        return _transformers(folder)
    if folder.suffix == ".ckpt":  # Lightning's sharded strategies write a folder of that name
        return _lightning(folder)
    return None


def _ranked(folder: Path, kind: str, step: int) -> ForeignCheckpoint:
    files = _files(folder)
    names = [path.name for path in files]
    tensor = {found[1] for name in names if (found := _LAYER.fullmatch(name))}
    ranked = [found for path in files for part in path.parts if (found := _RANKED.match(part))]
    tensor = tensor or ({found[1] for found in ranked} if kind == "megatron" else set())
    pipeline = {found[2] for found in ranked if found[2]} if kind == "megatron" else set()
    data = {found[1] for name in names if (found := _ZERO.fullmatch(name))}
    sizes = {"tensor": len(tensor), "pipeline": len(pipeline), "data": len(data)}
    has_optimizer = bool(data) or any("optim" in name for name in names) or kind == "megatron"
    layout = {axis: size for axis, size in sizes.items() if size}
    return ForeignCheckpoint(folder, kind, step, files, "full" if has_optimizer else "weights", layout=layout)


def _lightning(path: Path) -> ForeignCheckpoint:
    name = path.name.removesuffix(".ckpt")
    step = _STEP.search(name)
    metrics = {key: float(value) for key, value in _METRIC.findall(name) if key not in ("step", "epoch")}
    files = _files(path) if path.is_dir() else [path]
    return ForeignCheckpoint(path, "lightning", int(step[1]) if step else None, files, metrics=metrics)


def _transformers(folder: Path) -> ForeignCheckpoint:
    found = _TRANSFORMERS.fullmatch(folder.name)
    step = int(found[1]) if found else None
    state = folder / "trainer_state.json"
    if step is None and state.is_file():
        try:
            step = int(json.loads(state.read_bytes())["global_step"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrainyardError(f"{state} does not say the step ({error}); give it with --step N") from None
    has_optimizer = any((folder / name).is_file() for name in ("optimizer.pt", "optimizer.bin"))
    return ForeignCheckpoint(folder, "transformers", step, _files(folder), "full" if has_optimizer else "weights")


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _MARKS)
    if not files:
        raise TrainyardError(f"{folder} is empty; an adoption reads what is there")
    return files
