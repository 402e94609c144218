"""Reading DeepSpeed's own checkpoints: plain modules and pipelines, ZeRO 0 to 3, any number of ranks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import (
    DeepSpeedFolder,
    list_deepspeed_folder,
    listed,
    require_data_parallel,
)
from megatron_patches.exchange.foreign import (
    ForeignCheckpoint,
    ForeignProgress,
    ForeignTensor,
    Shard,
    ShardStretch,
    reader_of,
    whole_shard,
)
from megatron_patches.exchange.plain_optimizer import read_plain_optimizer
from megatron_patches.exchange.safe_pickle import Settings, read_pickle
from megatron_patches.exchange.zero_partitions import Shards, merge_partitions, merge_shares


@dataclass(frozen=True)
class ReadOptions:
    """What to read, and how far the files are trusted."""

    weights_only: bool = False
    """leave the optimizer's files alone"""
    trust_pickle: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    """see `NameMap.groups`"""


@dataclass(frozen=True)
class _Opened:
    """A folder with the states of its model-parallel ranks, and how they lie."""

    folder: DeepSpeedFolder
    states: list[dict[str, Any]]
    options: ReadOptions
    tensor: int

    @property
    def shares_weights(self) -> bool:
        """ZeRO 3."""
        return not self.folder.models

    @property
    def data(self) -> int:
        """Data-parallel ranks, as the first rank counts them."""
        return int(self.states[0]["dp_world_size"])

    def read(self, path: Path) -> Any:
        """A file of the folder."""
        return read_pickle(path, self.options.trust_pickle)


@dataclass
class _Collected:
    """What was found, over all model-parallel ranks."""

    shards: dict[tuple[str, str], dict[int, Shard]] = field(default_factory=dict)
    """by (name, kind) and tensor-parallel rank"""
    steps: dict[str, int] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    zero_stage: int = 0

    def add_weight(self, name: str, tensor_rank: int, shard: Shard) -> None:
        """A rank's weight."""
        self.shards.setdefault((name, "weight"), {})[tensor_rank] = shard

    def add(
        self, read: Shards, shapes: Mapping[str, tuple[int, ...]], where: Path, model_rank: int, tensor: int
    ) -> None:
        """What the optimizer's files of a model-parallel rank hold; of what several stages hold the first stage's."""
        for key, shard in read.shards(shapes, str(where)).items():
            self.shards.setdefault(key, {}).setdefault(model_rank % tensor, shard)
        self.steps.update({f"model-parallel rank {model_rank}: {file}": step for file, step in read.steps.items()})
        self.optimizer = self.optimizer or read.optimizer


def read_deepspeed(path: Path, options: ReadOptions) -> ForeignCheckpoint:
    """What a folder `global_stepN` holds; tensors stay in their files until they are read.

    Raises:
        TrainyardError: files are missing, damaged, unsafe, or of a sort that cannot be read exactly.
    """
    opened = _open(list_deepspeed_folder(path), options)
    found = _Collected(zero_stage=3 if opened.shares_weights else 0)
    _collect_weights(opened, found)
    if opened.folder.optimizers and (opened.shares_weights or not options.weights_only):
        _collect_partitions(opened, found)
    elif not options.weights_only:
        _collect_plain_optimizer(opened, found)
    first = opened.states[0]
    return ForeignCheckpoint(
        format="deepspeed pipeline" if opened.folder.layers else "deepspeed",
        tensors=list(_tensors(found, opened.tensor, options)),
        progress=progress_of(first),
        optimizer_steps=agreed_steps(found.steps),
        layout={
            "tensor": opened.tensor,
            "pipeline": len(opened.states) // opened.tensor,
            "data": opened.data,
            "sequence_parallel": False,
            "zero_stage": found.zero_stage,
        },
        settings=settings_of(first),
        optimizer=found.optimizer,
    )


def _open(folder: DeepSpeedFolder, options: ReadOptions) -> _Opened:
    paths = [folder.models[rank] for rank in sorted(folder.models)] or [
        folder.shared_models[rank, 0] for rank in range(folder.model_parallel)
    ]
    states = [read_pickle(path, options.trust_pickle) for path in paths]
    for path, state in zip(paths, states, strict=True):
        if not isinstance(state, dict) or "dp_world_size" not in state:
            raise TrainyardError(f"{path} is no state that DeepSpeed saved (dp_world_size is missing)")
    _refuse_unreadable(states[0], paths[0])
    stated = (states[0].get("checkpoint_parallel_dimensions") or {}).get("tp_degree")
    tensor = max((rank for _, rank in folder.layers), default=-1) + 1 or len(states)
    if stated is not None and stated != tensor:
        raise TrainyardError(
            f"{paths[0]} says {stated} tensor-parallel ranks, the files are those of {tensor}; files are missing"
        )
    return _Opened(folder, states, options, tensor)


def _refuse_unreadable(state: dict[str, Any], path: Path) -> None:
    config = state.get("ds_config")
    zero = config.get("zero_optimization") if isinstance(config, dict) else None
    if isinstance(zero, dict) and zero.get("round_robin_gradients"):
        raise TrainyardError(
            f"{path}: saved with zero_optimization.round_robin_gradients, where DeepSpeed's record of which elements "
            "are whose does not hold; save it once more without, or import with --weights-only"
        )
    version = state.get("checkpoint_version")
    if isinstance(version, (int, float)) and version < 2:
        raise TrainyardError(
            f"{path}: Megatron's checkpoint_version {version} orders the attention matrix in a way that version 2.0 "
            "gave up; load and save it with a newer Megatron first"
        )


def _collect_weights(opened: _Opened, found: _Collected) -> None:
    for (number, rank), path in sorted(opened.folder.layers.items()):
        for key, value in flat_names(opened.read(path)):
            found.add_weight(f"{number}.{key}", rank, whole_shard(value))
    for rank, state in enumerate(opened.states):
        if opened.shares_weights:
            _collect_frozen_shares(opened, rank, found)
        elif state.get("module") is not None:
            for name, value in _parameters(state):
                found.add_weight(name, rank, whole_shard(value))


def _collect_frozen_shares(opened: _Opened, model_rank: int, found: _Collected) -> None:
    """ZeRO 3 keeps frozen parameters as shares beside the model's state; those trained are in the optimizer's."""
    shapes = opened.states[model_rank].get("frozen_param_shapes") or {}
    stretches: dict[str, list[ShardStretch]] = {name: [] for name in shapes}
    dtypes: dict[str, torch.dtype] = {}
    for rank in range(opened.data if shapes else 0):
        path = opened.folder.shared_models.get((model_rank, rank))
        if path is None:
            raise TrainyardError(f"{opened.folder.path} lacks the state of data-parallel rank {rank}")
        for name, share in opened.read(path)["frozen_param_fragments"].items():
            whole = shapes[name].numel()
            start = min(rank * share.numel(), whole)
            stretches[name].append(ShardStretch(start, min(share.numel(), whole - start), reader_of(share)))
            dtypes[name] = share.dtype
    for name, held in stretches.items():
        found.add_weight(name, model_rank, Shard(tuple(shapes[name]), dtypes[name], tuple(held)))


def _collect_partitions(opened: _Opened, found: _Collected) -> None:
    """Masters and moments of ZeRO 1 to 3."""
    require_data_parallel(opened.folder, opened.data)
    for model_rank, state in enumerate(opened.states):
        paths = [opened.folder.optimizers[model_rank, rank] for rank in range(opened.data)]
        saved = [(path, opened.read(path)["optimizer_state_dict"]) for path in paths]
        groups = state["param_shapes"]
        # DeepSpeed's bf16 optimizer, which shares its state out as ZeRO 1 does, names no stage
        found.zero_stage = int(saved[0][1].get("zero_stage", 1))
        merged = merge_shares(saved, groups) if opened.shares_weights else merge_partitions(saved)
        found.add(merged, shapes_of(groups), opened.folder.path, model_rank, opened.tensor)


def _collect_plain_optimizer(opened: _Opened, found: _Collected) -> None:
    """Masters and moments of ZeRO 0."""
    for model_rank, state in enumerate(opened.states):
        path = opened.folder.models[model_rank]
        if not state.get("optimizer"):
            raise TrainyardError(f"{opened.folder.path} has no state of an optimizer; import it with --weights-only")
        if opened.folder.layers:
            raise TrainyardError(
                f"{path}: a pipeline under ZeRO 0 numbers the optimizer's parameters stage by stage and does not name "
                "them; import it with --weights-only, or save it once under ZeRO 1"
            )
        shapes = {name: tuple(value.shape) for name, value in _parameters(state)}
        read = read_plain_optimizer(state["optimizer"], shapes, opened.options.groups, path)
        found.add(read, shapes, path, model_rank, opened.tensor)


def _tensors(found: _Collected, tensor: int, options: ReadOptions) -> Iterator[ForeignTensor]:
    lacking = [f"{kind} of {name}" for (name, kind), shards in found.shards.items() if len(shards) != tensor]
    if lacking:
        raise TrainyardError(f"not all of the {tensor} tensor-parallel ranks hold {listed(lacking)}")
    for (name, kind), shards in found.shards.items():
        if kind in ("weight", "master") or not options.weights_only:
            yield ForeignTensor(name, kind, tuple(shards[rank] for rank in range(tensor)))


def _parameters(state: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The module's parameters in their order, without buffers and second names of a shared one."""
    left_out = set(state.get("buffer_names") or ()) | set(state.get("shared_params") or {})
    return ((name, value) for name, value in flat_names(state["module"]) if name not in left_out)


def flat_names(module: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of a state that may be nested, as Megatron's own `state_dict_for_save_checkpoint` is."""
    for key, value in module.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from flat_names(value, f"{prefix}{key}.")


def shapes_of(groups: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all groups."""
    return {name: tuple(shape) for group in groups for name, shape in group.items()}


def progress_of(state: dict[str, Any]) -> ForeignProgress:
    """How far training was: what the client says before what DeepSpeed counts."""
    settings = settings_of(state)
    step = state.get("iteration", state.get("global_steps"))
    samples = settings.get("consumed_train_samples", state.get("global_samples"))
    return ForeignProgress(step, samples, settings.get("consumed_train_tokens"))


def settings_of(state: dict[str, Any]) -> dict[str, Any]:
    """The command line that Megatron saves; empty where there is none."""
    saved = state.get("args")
    return vars(saved) if isinstance(saved, Settings) or hasattr(saved, "__dict__") else {}


def agreed_steps(steps: Mapping[str, int]) -> int | None:
    """The optimizer's count of updates, on which all files must agree."""
    if len(set(steps.values())) > 1:
        said = [f"{where}: {step}" for where, step in steps.items()]
        raise TrainyardError(f"the files count different numbers of updates: {listed(said)}; they are mixed")
    return next(iter(steps.values()), None)
