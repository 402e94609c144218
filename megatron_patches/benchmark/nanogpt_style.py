"""A peer of another make: GPT-2 in plain PyTorch in the manner of nanoGPT, compiled whole, under bf16 autocast.

Written here in that manner: a fused query-key-value matrix, `scaled_dot_product_attention`, cross entropy over all
logits, and the loop of `other_model`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.benchmark.other_model import OtherModelLoop
from megatron_patches.errors import TrainyardError
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.run.config import RunConfig


class _Block(nn.Module):
    def __init__(self, model: GPTConfig) -> None:
        super().__init__()
        hidden = model.hidden_size
        self.heads = model.attention_heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, model.mlp_width), nn.Linear(model.mlp_width, hidden)

    def forward(self, stream: Tensor) -> Tensor:
        batch, sequence, hidden = stream.shape
        query, key, value = (
            part.view(batch, sequence, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(stream)).split(hidden, dim=2)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        stream = stream + self.out(attended.transpose(1, 2).reshape(batch, sequence, hidden))
        return stream + self.down(F.gelu(self.up(self.norm2(stream)), approximate="tanh"))


class _GPT2(nn.Module):
    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        model = config.model
        assert isinstance(model, GPTConfig), "`require_gpt2` has refused other architectures"
        self.tokens = nn.Embedding(model.padded_vocab_size, model.hidden_size)
        self.positions = nn.Embedding(config.lengths.of("tokens"), model.hidden_size)
        self.blocks = nn.ModuleList(_Block(model) for _ in range(model.layers))
        self.norm = nn.LayerNorm(model.hidden_size)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=model.residual_deviation if residual else model.deviation)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        stream = self.tokens(ids) + self.positions(positions)
        for block in self.blocks:
            stream = block(stream)
        logits = F.linear(self.norm(stream), self.tokens.weight)
        losses = F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1), reduction="none")
        return (losses * weights.reshape(-1)).sum()


class NanoGPTStyleLoop(OtherModelLoop):
    """Its loop."""

    def __init__(self, config: RunConfig, groups: ProcessGroups, batches: list[list[MicroBatch]]) -> None:
        require_gpt2(config)
        torch.manual_seed(config.training.seed)
        super().__init__(config, groups, batches, _GPT2(config))

    def _loss(self, batch: MicroBatch) -> Tensor:
        loss: Tensor = self._forward(batch.inputs["tokens"], batch.labels, batch.weights)
        return loss


def require_gpt2(config: RunConfig) -> None:
    """Raise TrainyardError if the run trains something else than GPT-2's architecture with AdamW."""
    model = config.model
    if not isinstance(model, GPTConfig):
        raise TrainyardError(f"{config.name}: the nanoGPT-style peer is GPT-2, and the run is none; use --peer loop")
    differs = {
        "model.position_embedding": model.position_embedding.name != "learned",
        "model.activation": model.activation != "gelu_tanh",
        "model.norm": model.norm != "layernorm" or not model.norm_bias or model.norm_placement != "pre",
        "model.key_value_heads": model.groups != model.attention_heads,
        "model.tied_head": not model.tied_head,
        "model.hidden_dropout": model.draws,
        "model.attention_bias": not (model.attention_bias and model.mlp_bias),
        "model.parallel_residual": model.parallel_residual or model.query_key_norm or model.embedding_norm,
        "model.logit_soft_cap": model.logit_soft_cap is not None,
        "objective": config.objective.inputs.attention != "causal",
        "optimizer.name": config.optimizer.name != "adamw",
    }
    found = [key for key, is_so in differs.items() if is_so]
    if found:
        raise TrainyardError(
            f"{config.name}: the nanoGPT-style peer is GPT-2 with AdamW, and the run differs in {', '.join(found)}; "
            "use --peer loop, or set the keys to GPT-2's"
        )
