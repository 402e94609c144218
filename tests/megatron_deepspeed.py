"""A pipeline as Megatron-DeepSpeed builds BLOOM, with its names and order of layers, saved by DeepSpeed itself.

No step is taken: every weight, master and moment is a number that follows from its name, so that a test knows what is
in the files without reading them.
"""

from __future__ import annotations

import argparse
import enum
import random
import shutil
import sys
import types
import zlib
from pathlib import Path
from typing import Any

from megatron_patches.models.gpt.gpt_config import GPTConfig

TENSOR = 2
UPDATES = 7
KINDS = ("master", "exp_avg", "exp_avg_sq")
CUTS = {
    "word_embeddings.weight": 0,
    "self_attention.query_key_value.weight": 0,
    "self_attention.query_key_value.bias": 0,
    "self_attention.dense.weight": 1,
    "mlp.dense_h_to_4h.weight": 0,
    "mlp.dense_h_to_4h.bias": 0,
    "mlp.dense_4h_to_h.weight": 1,
}
"""dimension that tensor-parallel ranks share, by the end of the name; they hold copies of all else"""


def values(name: str, kind: str, tensor_rank: int, shape: tuple[int, ...]) -> Any:
    """What a rank has of a parameter, fp32."""
    import torch

    rank = tensor_rank if any(name.endswith(end) for end in CUTS) else 0
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {kind} {rank}".encode()))
    drawn = torch.randn(shape, generator=generator)
    return drawn.square() if kind == "exp_avg_sq" else drawn


def whole(name: str, kind: str, shape: tuple[int, ...]) -> Any:
    """The same of all ranks together; `shape` is one rank's."""
    import torch

    cuts = [dimension for end, dimension in CUTS.items() if name.endswith(end)]
    if not cuts:
        return values(name, kind, 0, shape)
    return torch.cat([values(name, kind, rank, shape) for rank in range(TENSOR)], dim=cuts[0])


def build_pipeline(model: GPTConfig) -> Any:
    """This rank's part of a PipelineModule of 2 stages, tensor parallel by 2."""
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
    from torch import Tensor, nn

    hidden = model.hidden_size

    class WordEmbeddings(nn.Embedding):
        def __init__(self) -> None:
            super().__init__(model.padded_vocab_size // TENSOR, hidden)
            self.norm = nn.LayerNorm(hidden)

    class EmbeddingPipe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word_embeddings = WordEmbeddings()

        @property
        def word_embeddings_weight(self) -> Tensor:
            return self.word_embeddings.weight

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query_key_value = nn.Linear(hidden, 3 * hidden // TENSOR)
            self.dense = nn.Linear(hidden // TENSOR, hidden)

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense_h_to_4h = nn.Linear(hidden, model.ffn_size // TENSOR)
            self.dense_4h_to_h = nn.Linear(model.ffn_size // TENSOR, hidden)

    class ParallelTransformerLayerPipe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input_layernorm = nn.LayerNorm(hidden)
            self.self_attention = Attention()
            self.post_attention_layernorm = nn.LayerNorm(hidden)
            self.mlp = MLP()

    def plain(stream: Tensor) -> Tensor:
        return stream

    tied: dict[str, Any] = {"tied_weight_attr": "word_embeddings_weight"}
    blocks = [LayerSpec(ParallelTransformerLayerPipe) for _ in range(model.layers)]
    last = TiedLayerSpec("embed", EmbeddingPipe, forward_fn=lambda layer, stream: stream, **tied)
    specs = [plain, TiedLayerSpec("embed", EmbeddingPipe, **tied), plain, *blocks, plain]
    return PipelineModule(
        layers=[*specs, LayerSpec(nn.LayerNorm, hidden), last, plain],
        topology=PipeModelDataParallelTopology(num_pp=2, num_mp=TENSOR, num_dp=1),
        loss_fn=lambda output, labels: output.sum(),
        partition_method="type:transformer",
    )


def save_pipeline(model: GPTConfig, folder: str) -> list[str]:
    """For `tests.ranks`, 4 ranks: fill and save it in bf16 with DeepSpeed's BF16_Optimizer; names on this rank."""
    import deepspeed
    import torch
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    from megatron_patches.deepspeed_patches.no_shared_memory_op import skip_shared_memory_op

    skip_shared_memory_op()
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    module = build_pipeline(model)
    parameters = dict(module.named_parameters())
    decayed, plain = ([each for each in parameters.values() if (each.dim() > 1) == wanted] for wanted in (True, False))
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=torch.optim.AdamW(groups),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_optimization": {"stage": 1},
            "zero_allow_untested_optimizer": True,
        },
    )
    optimizer = engine.optimizer.optimizer
    for group in optimizer.param_groups:
        (flat,) = group["params"]
        moments = {kind: torch.zeros_like(flat) for kind in KINDS[1:]}
        optimizer.state[flat] = {"step": torch.tensor(float(UPDATES)), **moments}
    engine.optimizer._lazy_init_hp_params_optimizer_state()
    tensor_rank, stage = engine.grid.get_slice_parallel_rank(), engine.grid.get_pipe_parallel_rank()
    for name, parameter in parameters.items():
        # the last stage's copies of the embedding's norm are trained by nobody: they drift away by their decay
        stale = " stale" if stage > 0 and name.startswith("tied_modules.embed.word_embeddings.norm") else ""
        master, *others = (values(name + stale, kind, tensor_rank, tuple(parameter.shape)) for kind in KINDS)
        safe_set_full_fp32_param(parameter, master)
        parameter.data.copy_(master)
        for kind, moment in zip(KINDS[1:], others, strict=True):
            safe_set_full_optimizer_state(parameter, moment, kind)
    engine.save_checkpoint(folder, tag="global_step3", client_state=client_state(model))
    return list(parameters)


def client_state(model: GPTConfig) -> dict[str, Any]:
    """What Megatron saves of itself: its command line, with an enumeration of its own, and random states."""
    import numpy as np
    import torch

    module = sys.modules["megatron.enums"] = enums()
    arguments = argparse.Namespace(
        num_layers=model.layers, hidden_size=model.hidden_size, num_attention_heads=model.attention_heads,
        ffn_hidden_size=model.ffn_size, layernorm_epsilon=1e-5, params_dtype=torch.bfloat16, glu_activation=None,
        position_embedding_type=module.PositionEmbeddingType.alibi, save=Path("/somewhere"),
        consumed_train_samples=24, consumed_train_tokens=384,
    )  # fmt: skip
    rng = {
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.get_rng_state(),
    }
    return {"args": arguments, "checkpoint_version": 3.0, "iteration": 3, "rng_state": [rng], "lr_scheduler": None}


def enums() -> Any:
    """Megatron's module of that name, which pickles of its settings refer to."""
    module: Any = types.ModuleType("megatron.enums")
    module.PositionEmbeddingType = enum.Enum("PositionEmbeddingType", {"alibi": 3}, module="megatron.enums")
    return module


def share_out(source: Path, target: Path, ranks: int) -> None:
    """The same checkpoint as so many data-parallel ranks would have saved it: flat groups cut evenly and padded."""
    import torch

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*optim_states.pt"))
    for path in target.glob("mp_rank_*"):
        state = torch.load(path, weights_only=False)
        torch.save(state | {"dp_world_size": ranks}, path)
    for path in source.glob("*optim_states.pt"):
        state = torch.load(path, weights_only=False)
        for rank in range(ranks):
            name = path.name.replace("zero_pp_rank_0_", f"zero_pp_rank_{rank}_")
            torch.save(
                state | {"optimizer_state_dict": _share(state["optimizer_state_dict"], rank, ranks)}, target / name
            )


def _share(whole: dict[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    from deepspeed.utils.tensor_fragment import fragment_address

    share: dict[str, Any] = {
        "single_partition_of_fp32_groups": [], "param_slice_mappings": [], "group_paddings": [],
        "partition_count": [ranks] * 2, "base_optimizer_state": {**whole["base_optimizer_state"], "state": {}},
    }  # fmt: skip
    for group, mapping in enumerate(whole["param_slice_mappings"]):
        used = sum(address.numel for address in mapping.values())
        size = -(-used // (2 * ranks)) * 2
        first, last = rank * size, (rank + 1) * size
        flats = {
            "master": whole["single_partition_of_fp32_groups"][group],
            **whole["base_optimizer_state"]["state"][group],
        }
        cut = {kind: _cut(flat, used, first, size) for kind, flat in flats.items()}
        share["single_partition_of_fp32_groups"].append(cut.pop("master"))
        share["base_optimizer_state"]["state"][group] = cut
        share["group_paddings"].append(max(0, min(size, last - used)))
        share["param_slice_mappings"].append(
            {
                name: fragment_address(start=max(address.start, first) - first, numel=stop - max(address.start, first))
                for name, address in mapping.items()
                if (stop := min(address.start + address.numel, last)) > max(address.start, first)
            }
        )
    return whole | share


def _cut(flat: Any, used: int, first: int, size: int) -> Any:
    """A rank's elements, zeros behind the last; a count of updates is no tensor of elements."""
    import torch

    if flat.dim() == 0:
        return flat
    cut = torch.zeros(size)
    held = flat[min(first, used) : min(first + size, used)]
    cut[: held.numel()] = held
    return cut
