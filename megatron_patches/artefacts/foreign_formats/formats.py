"""Recognising foreign checkpoints by the names of their files: DeepSpeed's and Megatron's folders as BigScience wrote
them, PyTorch Lightning's `.ckpt` files, and transformers' folders. Nothing of them is run.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from megatron_patches.artefacts.foreign_formats.pickle_outline import read_outline, refuse_cut
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.files import everything_beneath, is_file, names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.names import is_unicode
from megatron_patches.foreign.printable import printable

_DEEPSPEED = re.compile(r"global_step([0-9]{1,10})")
_MEGATRON = re.compile(r"iter_([0-9]{7})")
_TRANSFORMERS = re.compile(r"checkpoint-([0-9]{1,10})")
_RANKED = re.compile(r"mp_rank_(\d+)(?:_(\d+))?")
_LAYER = re.compile(r"layer_\d+-model_(\d+)-model_states\.pt")
_ZERO = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt")
_STEP = re.compile(r"(?:^|[-_])(?:step|epoch=\d+-step)[-=]([0-9]{1,10})(?![0-9])")
_METRIC = re.compile(r"[-_]([A-Za-z][A-Za-z_]*)[-=]([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)(?=[-_.]|$)")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
_DEEPEST = 3
_TOLD = 10
_STEPS = 10**10
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
    named: bool = True
    """its name says the step; else, where it is known, the file does"""
    why_unknown: str = ""
    """why the step is not known"""

    @property
    def root(self) -> Path:
        """Folder that its files' paths start from."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def name(self) -> str:
        """Name of its folder or file."""
        return self.path.name


@dataclass(frozen=True)
class PassedOver:
    """What was met and is not adopted."""

    path: Path
    reason: str
    is_fault: bool = True
    """False: nothing is lost by it, such as a second name of what is adopted"""

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


def find_checkpoints(folder: Path) -> tuple[list[ForeignCheckpoint], list[PassedOver]]:
    """The checkpoints in a folder, or the folder itself if it is one, by step; and what is none, and why.

    Raises:
        Missing: there is nothing of a known format.
    """
    shown = printable(folder)
    if not is_unicode(str(folder.absolute())):
        raise Refused(
            f"the name of {shown} is not UTF-8, which a manifest cannot hold; rename it, or make a link to it"
        )
    if not folder.exists():
        raise Missing(f"{shown} does not exist; name the folder, or the file, that is to be adopted")
    met = list(_look(folder, depth=0))
    found = [each for each in met if isinstance(each, ForeignCheckpoint)]
    passed_over = [each for each in met if isinstance(each, PassedOver)]
    if not found:
        reasons = "".join(f"\n{each}" for each in passed_over[:_TOLD])
        raise Missing(
            f"{shown} holds no checkpoint of a known format: global_stepN/ (DeepSpeed), iter_NNNNNNN/ (Megatron), "
            "*.ckpt (Lightning), or a folder with config.json and model.safetensors or pytorch_model.bin (transformers)"
            f"{reasons}"
        )
    return sorted(found, key=lambda each: (each.step if each.step is not None else -1, each.name)), passed_over


def _look(path: Path, depth: int) -> Iterator[ForeignCheckpoint | PassedOver]:
    try:
        if not is_unicode(path.name):
            yield PassedOver(path, "its name is not UTF-8, which a manifest cannot hold; rename it")
        elif path.is_dir():
            if (one := _as_folder(path)) is not None:
                yield one
            elif depth < _DEEPEST:
                for name in names_in(path):
                    yield from _look(path / name, depth + 1)
        elif path.suffix == ".ckpt" and path.is_file():
            yield _lightning(path)
        elif path.suffix in _SUFFIXES:
            reason = "no known format has such a file by itself" if path.is_file() else "is no plain file"
            yield PassedOver(path, reason)
    except (TrainyardError, OSError) as error:
        yield PassedOver(path, printable(error))


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
    told = {key: float(value) for key, value in _METRIC.findall(name) if key not in ("step", "epoch")}
    metrics = {key: value for key, value in told.items() if math.isfinite(value)}
    files = _files(path) if path.is_dir() else [path]
    if path.is_file():
        refuse_cut(path)
    if step:
        return ForeignCheckpoint(path, "lightning", int(step[1]), files, metrics=metrics)
    inside, why = _step_inside(path)
    return ForeignCheckpoint(path, "lightning", inside, files, metrics=metrics, named=False, why_unknown=why)


def _step_inside(path: Path) -> tuple[int | None, str]:
    """The step that a file such as `last.ckpt` states, or why it is not known."""
    if path.is_dir():
        return None, "its name does not say the step"
    try:
        step = read_outline(path).step
    except TrainyardError as error:
        return None, f"its name does not say the step, and it cannot be looked into: {error}"
    return step, "" if step is not None else "neither its name nor the file says the step"


def _transformers(folder: Path) -> ForeignCheckpoint:
    found = _TRANSFORMERS.fullmatch(folder.name)
    step, why = (int(found[1]), "") if found else (None, "neither its name nor a trainer_state.json says the step")
    state = folder / "trainer_state.json"
    if step is None and state.exists():
        try:
            step = whole_of(parse_object(read_bounded(state), printable(state)).get("global_step"), _STEPS)
            why = f"{printable(state)} does not say the step"
        except TrainyardError as error:
            why = str(error)
    has_optimizer = any((folder / name).is_file() for name in ("optimizer.pt", "optimizer.bin"))
    content = "full" if has_optimizer else "weights"
    return ForeignCheckpoint(
        folder, "transformers", step, _files(folder), content, named=found is not None, why_unknown=why
    )


def _files(folder: Path) -> list[Path]:
    files = [path for path in everything_beneath(folder) if is_file(path) and path.name not in _MARKS]
    if not files:
        raise TrainyardError(f"{printable(folder)} is empty; an adoption reads what is there")
    if odd := [path for path in files if not is_unicode(str(path))]:
        raise TrainyardError(f"the name of {printable(odd[0])} is not UTF-8, which a manifest cannot hold; rename it")
    return files
