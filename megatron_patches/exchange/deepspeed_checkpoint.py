"""Reading DeepSpeed's own checkpoints: plain modules and pipelines, ZeRO 0 to 3, any number of ranks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data_tools.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import (
    DeepSpeedFolder,
    list_deepspeed_folder,
    require_data_parallel,
    shortened,
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


def read_deepspeed(path: Path, options: ReadOptions) -> ForeignCheckpoint:
    """What a folder `global_stepN` holds; tensors stay in their files until they are read.

    Raises:
        TrainyardError: files are missing, damaged, unsafe, or of a sort that cannot be read exactly.
    """
    opened = _open(list_deepspeed_folder(path), options)
    collected: dict[tuple[str, str], dict[int, Shard]] = {}
    dtypes = _collect_weights(opened, collected)
    steps: dict[str, int] = {}
    stage = 3 if opened.shares_weights else 0
    if opened.folder.optimizers and (opened.shares_weights or not options.weights_only):
        stage = _collect_partitions(opened, collected, dtypes, steps)
    elif not options.weights_only:
        _collect_plain_optimizer(opened, collected, dtypes, steps)
    first = opened.states[0]
    return ForeignCheckpoint(
        format="deepspeed pipeline" if opened.folder.layers else "deepspeed",
        tensors=list(_tensors(collected, dtypes, opened.tensor, options)),
        progress=progress_of(first),
        optimizer_steps=agreed_steps(steps),
        layout={
            "tensor": opened.tensor,
            "pipeline": len(opened.states) // opened.tensor,
            "data": opened.data,
            "sequence_parallel": False,
            "zero_stage": stage,
        },
        settings=settings_of(first),
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


def _collect_weights(opened: _Opened, collected: dict[tuple[str, str], dict[int, Shard]]) -> dict[str, Any]:
    """Weights by (name, kind) and tensor-parallel rank; their type."""
    dtypes: dict[str, Any] = {}
    for (number, rank), path in sorted(opened.folder.layers.items()):
        for key, value in flat_names(opened.read(path)):
            dtypes.setdefault("weight", value.dtype)
            collected.setdefault((f"{number}.{key}", "weight"), {})[rank] = whole_shard(value)
    for rank, state in enumerate(opened.states):
        if opened.shares_weights:
            _collect_frozen_shares(opened, rank, collected, dtypes)
        elif state.get("module") is not None:
            for name, value in _parameters(state):
                dtypes.setdefault("weight", value.dtype)
                collected.setdefault((name, "weight"), {})[rank] = whole_shard(value)
    return dtypes


def _collect_frozen_shares(
    opened: _Opened, model_rank: int, collected: dict[tuple[str, str], dict[int, Shard]], dtypes: dict[str, Any]
) -> None:
    """ZeRO 3 keeps frozen parameters as shares beside the model's state; those trained are in the optimizer's."""
    shapes = opened.states[model_rank].get("frozen_param_shapes") or {}
    stretches: dict[str, list[ShardStretch]] = {name: [] for name in shapes}
    for rank in range(opened.data if shapes else 0):
        path = opened.folder.shared_models.get((model_rank, rank))
        if path is None:
            raise TrainyardError(f"{opened.folder.path} lacks the state of data-parallel rank {rank}")
        for name, share in opened.read(path)["frozen_param_fragments"].items():
            whole = shapes[name].numel()
            start = min(rank * share.numel(), whole)
            stretches[name].append(ShardStretch(start, min(share.numel(), whole - start), reader_of(share)))
            dtypes.setdefault("weight", share.dtype)
    for name, held in stretches.items():
        collected.setdefault((name, "weight"), {})[model_rank] = Shard(tuple(shapes[name]), tuple(held))


def _collect_partitions(
    opened: _Opened,
    collected: dict[tuple[str, str], dict[int, Shard]],
    dtypes: dict[str, Any],
    steps: dict[str, int],
) -> int:
    """Masters and moments; of what several pipeline stages hold the first stage's. Returns the ZeRO stage."""
    require_data_parallel(opened.folder, opened.data)
    stage = 3 if opened.shares_weights else 1
    for model_rank, state in enumerate(opened.states):
        paths = [opened.folder.optimizers[model_rank, rank] for rank in range(opened.data)]
        saved = [(path, opened.read(path)["optimizer_state_dict"]) for path in paths]
        groups = state["param_shapes"]
        stage = int(saved[0][1].get("zero_stage", stage))
        merged = merge_shares(saved, groups) if opened.shares_weights else merge_partitions(saved)
        _collect_shards(merged, shapes_of(groups), opened.folder.path, collected, model_rank % opened.tensor)
        dtypes.update(merged.dtypes)
        steps.update({f"model-parallel rank {model_rank}: {where}": step for where, step in merged.steps.items()})
    return stage


def _collect_plain_optimizer(
    opened: _Opened,
    collected: dict[tuple[str, str], dict[int, Shard]],
    dtypes: dict[str, Any],
    steps: dict[str, int],
) -> None:
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
        _collect_shards(read, shapes, path, collected, model_rank)
        dtypes.update(read.dtypes)
        steps.update({f"model-parallel rank {model_rank}: {where}": step for where, step in read.steps.items()})


def _collect_shards(
    read: Shards,
    shapes: Mapping[str, tuple[int, ...]],
    where: Path,
    collected: dict[tuple[str, str], dict[int, Shard]],
    tensor_rank: int,
) -> None:
    for key, shard in read.shards(shapes, str(where)).items():
        collected.setdefault(key, {}).setdefault(tensor_rank, shard)


def _tensors(
    collected: dict[tuple[str, str], dict[int, Shard]], dtypes: dict[str, Any], tensor: int, options: ReadOptions
) -> Iterator[ForeignTensor]:
    lacking = [f"{kind} of {name}" for (name, kind), shards in collected.items() if len(shards) != tensor]
    if lacking:
        raise TrainyardError(f"not all of the {tensor} tensor-parallel ranks hold {shortened(lacking)}")
    for (name, kind), shards in collected.items():
        if kind in ("weight", "master") or not options.weights_only:
            yield ForeignTensor(name, kind, dtypes[kind], tuple(shards[rank] for rank in range(tensor)))


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
        raise TrainyardError(f"the files count different numbers of updates: {shortened(said)}; they are mixed")
    return next(iter(steps.values()), None)
