"""The files of a DeepSpeed checkpoint, `global_stepN/`: which there are, and that none is missing.

    mp_rank_MM_model_states.pt                       of each model-parallel rank, pipeline stages outermost
    zero_pp_rank_DD_mp_rank_MM_optim_states.pt       of each of its data-parallel ranks: a share of the optimizer
    zero_pp_rank_DD_mp_rank_MM_model_states.pt       under ZeRO 3 in place of the first
    layer_NN-model_TT-model_states.pt                of a pipeline: the weights of each layer and tensor-parallel rank

Numbers have as many digits as they need: ranks are compared as numbers, and all must be there.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable, shortened

_MODEL = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_SHARED_MODEL = re.compile(r"zero_pp_rank_(\d+)_mp_rank_(\d+)_model_states\.pt")
_OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_?optim_states\.pt")
_LAYER = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
_EXPERT = re.compile(r"layer_.*expert_.*_model_states\.pt|expp_rank_.*_optim_states\.pt")

LONGEST_NAME = 4096  # bytes
MISSING_TOLD = 12


@dataclass(frozen=True)
class DeepSpeedFolder:
    """Paths by rank."""

    path: Path
    models: dict[int, Path]
    """of each model-parallel rank, with the state of training"""
    shared_models: dict[tuple[int, int], Path]
    """the same under ZeRO 3, by (model-parallel rank, data-parallel rank)"""
    optimizers: dict[tuple[int, int], Path]
    """by (model-parallel rank, data-parallel rank)"""
    layers: dict[tuple[int, int], Path]
    """of a pipeline, by (number of the layer, tensor-parallel rank)"""

    @property
    def model_parallel(self) -> int:
        """Model-parallel ranks: tensor x pipeline."""
        return len(self.models) or len({rank for rank, _ in self.shared_models})

    @property
    def first(self) -> Path:
        """The file that says how far training was."""
        return self.models[0] if self.models else self.shared_models[0, 0]


def find_checkpoint_folder(path: Path) -> Path:
    """The folder itself, or in a folder of several the one that its file `latest` names.

    Raises:
        TrainyardError: there is no such folder.
    """
    named = [file for name in ("latest", "latest_universal") if (file := path / name).is_file()]
    found = path / _folder_named(named[0]) if named else path
    if not found.is_dir():
        told = f", which {printable(named[0])} names" if named else ""
        raise TrainyardError(
            f"there is no folder {printable(found)}{told}; name a global_stepN folder of DeepSpeed, or a universal one"
        )
    return found


def _folder_named(file: Path) -> str:
    name = read_bounded(file, LONGEST_NAME).decode(errors="replace").strip()
    if not name or name in (".", "..") or "/" in name or not name.isprintable():
        raise TrainyardError(f"{printable(file)} holds '{shortened(name)}', expected the name of a folder beside it")
    return name


def list_deepspeed_folder(path: Path) -> DeepSpeedFolder:
    """The files of a folder.

    Raises:
        TrainyardError: it is no DeepSpeed checkpoint, has experts, or a file of the numbers up to the largest is
            missing.
    """
    names = sorted(each.name for each in path.iterdir() if each.is_file())
    if any(_EXPERT.fullmatch(name) for name in names):
        raise TrainyardError(f"{path} holds a mixture of experts, which no model here is; import another checkpoint")
    folder = DeepSpeedFolder(
        path,
        {int(match[1]): path / match[0] for match in _matches(_MODEL, names)},
        {(int(match[2]), int(match[1])): path / match[0] for match in _matches(_SHARED_MODEL, names)},
        {(int(match[2]), int(match[1])): path / match[0] for match in _matches(_OPTIMIZER, names)},
        {(int(match[1]), int(match[2])): path / match[0] for match in _matches(_LAYER, names)},
    )
    if not folder.models and not folder.shared_models:
        raise TrainyardError(
            f"{path} is no checkpoint of DeepSpeed: it has neither mp_rank_*_model_states.pt nor a folder zero/; name "
            "a global_stepN folder, or a universal one"
        )
    _require_all(folder)
    return folder


def require_data_parallel(folder: DeepSpeedFolder, ranks: int) -> None:
    """Raise TrainyardError unless the optimizer's files are those of so many data-parallel ranks, of every model rank.

    A rank too many counts as well: it is left from an earlier save.
    """
    wanted = _Grid(range(folder.model_parallel), ranks)
    _require(wanted, set(folder.optimizers), folder, lambda model, data: _optimizer_name(folder, model, data))


def _matches(pattern: re.Pattern[str], names: Iterable[str]) -> list[re.Match[str]]:
    return [match for name in names if (match := pattern.fullmatch(name))]


def _require_all(folder: DeepSpeedFolder) -> None:
    models = _Grid(range(max(folder.models, default=-1) + 1), 1)
    _require(
        models, {(rank, 0) for rank in folder.models}, folder, lambda rank, _: f"mp_rank_{rank:02d}_model_states.pt"
    )
    tensor = max((rank for _, rank in folder.layers), default=-1) + 1
    layers = _Grid(sorted({number for number, _ in folder.layers}), tensor)
    _require(
        layers, set(folder.layers), folder, lambda number, rank: f"layer_{number:02d}-model_{rank:02d}-model_states.pt"
    )
    if folder.layers and folder.model_parallel % tensor:
        raise TrainyardError(
            f"{folder.path} has layers of {tensor} tensor-parallel ranks and states of {folder.model_parallel} "
            "model-parallel ones, which is no multiple: files are missing, or left from another save"
        )


@dataclass(frozen=True)
class _Grid:
    """Pairs of numbers that files must have; never all of them in memory, since a file's name may say rank 10^200."""

    rows: Sequence[int]
    columns: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((row, column) for row in self.rows for column in range(self.columns))


def _require(
    wanted: _Grid, found: set[tuple[int, int]], folder: DeepSpeedFolder, name: Callable[[int, int], str]
) -> None:
    absent = (ranks for ranks in wanted if ranks not in found)
    missing = [name(*ranks) for ranks in islice(absent, MISSING_TOLD)]
    extra = [] if missing else [name(*ranks) for ranks in sorted(found - set(wanted))]
    if missing:
        more = " and perhaps more" if len(missing) == MISSING_TOLD else ""
        raise TrainyardError(f"{printable(folder.path)} lacks {listed(missing)}{more}; copy the whole folder again")
    if extra:
        raise TrainyardError(
            f"{folder.path} has {listed(extra)} of ranks that its own state does not count; it was saved over "
            "another checkpoint: move those of the older one away"
        )


def _optimizer_name(folder: DeepSpeedFolder, model: int, data: int) -> str:
    prefixes = {path.name.split("zero_pp_rank_")[0] for path in folder.optimizers.values()}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    return f"{prefix}zero_pp_rank_{data}_mp_rank_{model:02d}_optim_states.pt"


def listed(names: Iterable[str], limit: int = 12) -> str:
    """A list for a message; of a long one the first names and how many more there are."""
    given = list(names)
    rest = f" and {len(given) - limit} more" if len(given) > limit else ""
    return ", ".join(shortened(each) for each in given[:limit]) + rest
