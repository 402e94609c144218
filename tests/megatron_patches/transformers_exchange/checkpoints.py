"""Checkpoints of small runs with random weights, written without training, and exports of them."""

from pathlib import Path
from typing import Any

from megatron_patches.artefacts.folders import DATA_PARENTS, checkpoint_name
from megatron_patches.artefacts.manifest import Manifest, read_manifest
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import to_yaml
from tests.small_training import SmallData, overrides

NO_BIASES = {"model__norm_bias": False, "model__attention_bias": False, "model__mlp_bias": False}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"model__vocab_size": 390},
    "bloom": {"model__position_embedding": "alibi", "model__embedding_norm": True, "model__ffn_size": 128},
    "llama": {
        **NO_BIASES, "model__key_value_heads": 2, "model__position_embedding": "rotary", "model__activation": "swiglu",
        "model__norm": "rmsnorm", "model__tied_head": False,
    },
    "gpt_neox": {
        "model__position_embedding": "rotary", "model__activation": "gelu", "model__tied_head": False,
        "model__parallel_residual": True,
    },
}  # fmt: skip
STEP = 8


def small_run(data: SmallData, folder: Path, family: str = "gpt2", **settings: object) -> RunConfig:
    """A run of a family's model, its YAML written to a folder."""
    given = {key: str(value).lower() if isinstance(value, bool) else value for key, value in FAMILIES[family].items()}
    return data.run(folder, overrides(**(given | settings)))


def save_random(runs: Path, config: RunConfig, masters: bool = False, step: int = STEP, **facts: Any) -> Path:
    """A checkpoint under `runs/NAME/checkpoints/`: every number of its weights decides something. Masters are not what
    weights are when they are rounded."""
    import torch

    from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
    from megatron_patches.checkpoint.files.state_tensor import StateTensor
    from megatron_patches.checkpoint.offline.writing import OfflineContent, write_offline
    from megatron_patches.parameters.torch_dtypes import PRECISIONS

    draw, tensors = torch.Generator().manual_seed(5), list[StateTensor]()
    for row in config.parameters:
        values = torch.randn(row.shape, generator=draw) * 0.3 + (row.initial == "ones")
        tensors.append(_tensor(row.name, "weight", values.to(PRECISIONS[config.training.precision])))
        if masters:
            tensors.append(_tensor(row.name, "master", values + 1))
    identity = tokenizer_id(find_tokenizer(Path(config.data.tokenizer)))
    told = {"run": config.name, "launch": "0001", "step": step, "samples": 64, "tokens": 1024, DATA_PARENTS: 1}
    content = OfflineContent(
        {**told, "identity": {"tokenizer": identity}, **facts}, b"{}" if masters else None,
        to_yaml(config).encode(), (identity,),
    )  # fmt: skip
    folder = runs / config.name / "checkpoints" / checkpoint_name(step)
    write_offline(folder, tensors, 2, content)
    return folder


def _tensor(name: str, kind: str, values: Any) -> Any:
    """A tensor in memory, as one of a checkpoint."""
    from megatron_patches.checkpoint.files.state_tensor import StateTensor, Stretch
    from megatron_patches.parameters.tensor_slice import TensorSlice

    flat, shape = values.flatten(), tuple(values.shape)
    stretch = Stretch(TensorSlice.whole(shape), 0, flat.numel(), lambda first, last: flat[first:last].clone())
    return StateTensor(name, kind, shape, values.dtype, (stretch,))


def manifest_of(folder: Path) -> Manifest:
    """Of an artefact's folder."""
    return read_manifest(folder / "manifest.json")


def left_in(folder: Path) -> list[str]:
    """Names in a folder; none where it was never made."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
