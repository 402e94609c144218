"""A training script as people write them: a small GPT of its own, its own names and groups, under plain DeepSpeed.

It reads the samples that a run of ours reads, so that losses can be compared; nothing else of it is ours.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from megatron_patches.run.config import RunConfig

NAMES = """\
names:
  tok.weight: embedding.tokens.table.weight
  pos.weight: positions.weight
  blocks.{n}.ln1.*: layers.{n}.attention_norm.*
  blocks.{n}.qkv.*: layers.{n}.attention.query_key_value.linear.*
  blocks.{n}.proj.*: layers.{n}.attention.output.linear.*
  blocks.{n}.ln2.*: layers.{n}.mlp_norm.*
  blocks.{n}.fc1.*: layers.{n}.mlp.up.linear.*
  blocks.{n}.fc2.*: layers.{n}.mlp.down.linear.*
  ln.*: final_norm.*
"""


class TensorPeers:
    """Its own "model parallel unit": ranks are (data, tensor), tensor fastest."""

    def __init__(self, tensor: int) -> None:
        import torch.distributed as dist

        world, rank = dist.get_world_size(), dist.get_rank()
        self.tensor, self.data = tensor, world // tensor
        for first in range(0, world, tensor):
            group = dist.new_group(range(first, first + tensor))
            if first <= rank < first + tensor:
                self.tensor_group = group
        for first in range(tensor):
            group = dist.new_group(range(first, world, tensor))
            if rank % tensor == first:
                self.data_group = group
        self.data_rank, self.tensor_rank = divmod(rank, tensor)

    def get_model_parallel_rank(self) -> int:
        return self.tensor_rank

    def get_model_parallel_world_size(self) -> int:
        return self.tensor

    def get_model_parallel_group(self) -> Any:
        return self.tensor_group

    get_tensor_model_parallel_rank = get_model_parallel_rank
    get_tensor_model_parallel_world_size = get_model_parallel_world_size

    def get_data_parallel_rank(self) -> int:
        return self.data_rank

    def get_data_parallel_world_size(self) -> int:
        return self.data

    def get_data_parallel_group(self) -> Any:
        return self.data_group


def build_model(config: RunConfig, peers: TensorPeers, seed: int) -> Any:
    """Pre-norm blocks, learned positions, heads' queries, keys and values interleaved, a tied head."""
    import torch
    import torch.nn.functional as F
    from megatron.core.model_parallel_config import ModelParallelConfig
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding
    from megatron.core.tensor_parallel.mappings import (
        copy_to_tensor_model_parallel_region,
        gather_from_tensor_model_parallel_region,
    )
    from torch import Tensor, nn

    model, group = config.model, peers.tensor_group
    hidden, heads = model.hidden_size, model.attention_heads
    core = ModelParallelConfig(
        tensor_model_parallel_size=peers.tensor, use_cpu_initialization=True, perform_initialization=False
    )
    shared = {"config": core, "init_method": lambda weight: weight, "tp_group": group}

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
            self.qkv = ColumnParallelLinear(hidden, 3 * hidden, gather_output=False, **shared)
            self.proj = RowParallelLinear(
                hidden, hidden, bias=True, input_is_parallel=True, skip_bias_add=False, **shared
            )
            self.fc1 = ColumnParallelLinear(hidden, model.ffn_size, gather_output=False, **shared)
            self.fc2 = RowParallelLinear(
                model.ffn_size, hidden, bias=True, input_is_parallel=True, skip_bias_add=False, **shared
            )

        def forward(self, x: Tensor) -> Tensor:
            length, batch, _ = x.shape
            fused = self.qkv(self.ln1(x))[0].view(length, batch, heads // peers.tensor, 3, hidden // heads)
            query, key, value = fused.permute(3, 1, 2, 0, 4).unbind(0)
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.proj(seen.permute(2, 0, 1, 3).flatten(2))[0]
            return x + self.fc2(F.gelu(self.fc1(self.ln2(x))[0], approximate="tanh"))[0]

    class BareGPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok = VocabParallelEmbedding(model.padded_vocab_size, hidden, **shared)
            self.pos = nn.Embedding(config.data.sequence_length, hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(model.layers))
            self.ln = nn.LayerNorm(hidden)

        def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
            x = self.tok(tokens).transpose(0, 1) + self.pos.weight[:, None]
            for block in self.blocks:
                x = block(x)
            logits = F.linear(copy_to_tensor_model_parallel_region(self.ln(x), group=group), self.tok.weight)
            whole = gather_from_tensor_model_parallel_region(logits, group=group)
            return F.cross_entropy(whole.float().transpose(0, 1).flatten(0, 1), labels.flatten())

        def state_dict(self, *arguments: Any, **options: Any) -> Any:
            """Without megatron-core's empty extra states, which DeepSpeed's converter stumbles over."""
            found = super().state_dict(*arguments, **options)
            for name in [name for name, value in found.items() if value is None]:
                del found[name]
            return found

    bare = BareGPT()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(bare.named_parameters()):
            split = getattr(parameter, "tensor_model_parallel", False) or name == "tok.weight"
            generator = torch.Generator().manual_seed(seed + 100 * number + (peers.tensor_rank if split else 0))
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * 0.05 + float("ln" in name and "w" in name)
            )
    return bare


class BareScript:
    """Its engine, optimizer and data; `train` gives the losses of the next steps."""

    def __init__(
        self,
        config: RunConfig,
        tensor: int,
        stage: int,
        bf16: bool = False,
        universal: bool = False,
        frozen: str | None = None,
    ) -> None:
        import deepspeed
        import torch

        from data_tools.run_data import RunData
        from data_tools.samples.order import TrainingOrder
        from megatron_patches.checkout import CHECKOUT
        from megatron_patches.deepspeed_patches.no_shared_memory_op import skip_shared_memory_op
        from megatron_patches.megatron_core_patches.cpu_as_current_device import use_cpu_where_there_is_no_cuda

        skip_shared_memory_op()
        use_cpu_where_there_is_no_cuda()
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
        self.config, self.peers = config, TensorPeers(tensor)
        model = build_model(config, self.peers, seed=3)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name != frozen)
        self.source = RunData(config.data, CHECKOUT, config.lengths).sources[0].training.samples
        self.order = TrainingOrder(len(self.source), config.training.seed)
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=torch.optim.AdamW(groups(model), betas=(0.9, 0.95), eps=1e-8),
            mpu=self.peers,
            config=settings(config, self.peers, stage, bf16) | {"checkpoint": {"load_universal": universal}},
        )
        self.step = 0

    def train(self, steps: int) -> list[float]:
        """Mean loss over the global batch of each of the next steps."""
        import torch
        import torch.distributed as dist

        losses = []
        for _ in range(steps):
            total = torch.zeros(())
            for tokens, labels in self.micro_batches():
                loss = self.engine(tokens, labels)
                self.engine.backward(loss)
                self.step += self.engine.is_gradient_accumulation_boundary()
                for group in self.engine.optimizer.param_groups:
                    group["lr"] = self.config.learning_rate(self.step)
                self.engine.step()
                total += loss.detach() / self.engine.gradient_accumulation_steps()
            dist.all_reduce(total, group=self.peers.data_group)
            losses.append(float(total) / self.peers.data)
        return losses

    def micro_batches(self) -> list[tuple[Any, Any]]:
        """Samples of this step that this rank reads: the run's, in the run's order."""
        import numpy as np
        import torch

        training = self.config.training
        size, micro = training.global_batch_size, training.micro_batch_size
        samples = np.arange(self.step * size, (self.step + 1) * size).reshape(-1, self.peers.data, micro)
        found = []
        for numbers in samples[:, self.peers.data_rank]:
            items = [self.source[int(each)]["tokens"] for each in self.order.numbers(numbers)]
            rows = torch.from_numpy(np.stack(items))
            found.append((rows[:, :-1].contiguous(), rows[:, 1:].contiguous()))
        return found

    def save(self, folder: Path, **client: object) -> None:
        """DeepSpeed's own checkpoint, with what this script adds."""
        self.engine.save_checkpoint(str(folder), client_state=client)


def groups(model: Any) -> list[dict[str, Any]]:
    """Matrices and tables decay, vectors do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices, vectors = ([each for each in trained if (each.dim() > 1) == wanted] for wanted in (True, False))
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def settings(config: RunConfig, peers: TensorPeers, stage: int, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    training = config.training
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": training.global_batch_size // training.micro_batch_size // peers.data,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "gradient_clipping": 0.0,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32" if bf16 and stage == 1 else None},
    }


def save_and_go_on(config: RunConfig, folder: str) -> list[float]:
    """Under TP2 x DP2 and ZeRO 1: 3 steps, a save with what DeepSpeed's converter asks for, and the 5 losses after."""
    script = BareScript(config, tensor=2, stage=1)
    script.train(3)
    patterns = {
        "universal_checkpoint_version": 0.2,
        "tp_replicated_parameter_patterns": [r"pos\.weight", r".*ln\d?\.(weight|bias)", r".*(proj|fc2)\.bias"],
        "parameter_with_row_parallelism_patterns": [r".*(proj|fc2)\.weight"],
    }
    script.save(Path(folder), universal_checkpoint_info=patterns, iteration=3)
    return script.train(5)


def save_each(config: RunConfig, folder: str, variants: dict[str, tuple[int, bool, str | None]]) -> None:
    """Of each ZeRO stage, precision and frozen parameter: 2 steps on all data-parallel ranks, and a save."""
    for name, (stage, bf16, frozen) in variants.items():
        script = BareScript(config, tensor=1, stage=stage, bf16=bf16, frozen=frozen)
        script.train(2)
        script.save(Path(folder) / name)


def load_universal_and_go_on(config: RunConfig, folder: str, step: int, steps: int) -> list[float]:
    """Under TP2 x DP2 and ZeRO 1, from a universal checkpoint, by DeepSpeed's own loading."""
    script = BareScript(config, tensor=2, stage=1, universal=True)
    loaded, _ = script.engine.load_checkpoint(folder, load_lr_scheduler_states=False)
    assert loaded is not None
    script.step = step
    return script.train(steps)
