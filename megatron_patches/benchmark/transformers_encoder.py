"""A peer of another make: transformers' EuroBERT, which has an encoder's parts, trained as its users write it.

All logits are made and compared with labels in which -100 marks what is not to be predicted. Labels lie ready.
"""

from typing import Any

import torch
from torch import Tensor, nn

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.benchmark.other_model import OtherModelLoop
from megatron_patches.errors import TrainyardError
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.layers.position_config import RotaryPositionConfig
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.run.config import RunConfig

IGNORED = -100
"""label of a place that is not to be predicted, transformers' convention"""


class TransformersLoop(OtherModelLoop):
    """Its loop.

    Raises:
        TrainyardError: the run is none that EuroBERT can be, or transformers is not installed.
    """

    def __init__(self, config: RunConfig, groups: ProcessGroups, batches: list[list[MicroBatch]]) -> None:
        require_eurobert(config)
        torch.manual_seed(config.training.seed)
        ready = [[collated(batch) for batch in step] for step in batches]
        super().__init__(config, groups, ready, _build(config))

    def _loss(self, batch: MicroBatch) -> Tensor:
        found: dict[str, Tensor] = self._forward(input_ids=batch.inputs["tokens"], labels=batch.labels)
        # the mean over this micro-batch's targets, as a share of all targets of the step
        return found["loss"] * batch.weights.sum()


def require_eurobert(config: RunConfig) -> None:
    """Raise TrainyardError if the run trains something else than EuroBERT's architecture on unpadded samples."""
    model = config.model
    if not isinstance(model, EncoderConfig):
        raise TrainyardError(f"{config.name}: the transformers peer is EuroBERT, and the run is no encoder; use loop")
    differs = {
        "model.position_embedding": not _turns_all(model),
        "model.activation": model.activation != "swiglu",
        "model.norm": model.norm != "rmsnorm" or model.norm_placement != "pre",
        "model.attention_bias": model.attention_bias or model.mlp_bias or model.decoder_bias,
        "model.parallel_residual": model.parallel_residual or model.query_key_norm or model.embedding_norm,
        "model.hidden_dropout": model.draws,
        "model.logit_soft_cap": model.logit_soft_cap is not None,
        "objective": config.objective.inputs.attention != "full",
        "data.samples": config.data.samples.name != "stream",
        "optimizer.name": config.optimizer.name != "adamw",
    }
    found = [key for key, is_so in differs.items() if is_so]
    if found:
        raise TrainyardError(
            f"{config.name}: the transformers peer is EuroBERT with AdamW, on whole samples whose tokens all see each "
            f"other, and the run differs in {', '.join(found)}; use --peer loop, or set the keys to the peer's "
            "(--objective.reset_attention false --data.samples stream)"
        )


def _turns_all(model: EncoderConfig) -> bool:
    position = model.position_embedding
    return isinstance(position, RotaryPositionConfig) and position.fraction == 1


def _build(config: RunConfig) -> nn.Module:
    try:
        from transformers import EuroBertConfig, EuroBertForMaskedLM
    except ImportError:
        raise TrainyardError(
            "--peer transformers needs transformers with EuroBERT: pip install -e '.[transformers]'"
        ) from None
    model = config.model
    assert isinstance(model, EncoderConfig)
    assert isinstance(model.position_embedding, RotaryPositionConfig)
    options: dict[str, Any] = {
        "vocab_size": model.padded_vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.mlp_width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.groups,
        "head_dim": model.head_size,
        "max_position_embeddings": config.lengths.of("tokens"),
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.position_embedding.theta},
        "tie_word_embeddings": model.tied_head,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,  # no row of the embedding is left out
        "mask_token_id": 0,  # read by nothing here; the default lies outside a small vocabulary, which is warned of
    }
    built: nn.Module = EuroBertForMaskedLM(EuroBertConfig(**options)).train()
    return built


def collated(batch: MicroBatch) -> MicroBatch:
    """With a label `[batch, sequence]` at each place, whichever form the run's objective gives them."""
    tokens = batch.inputs["tokens"]
    counts = batch.weights > 0
    labels = torch.full_like(tokens, IGNORED)
    rows, columns = counts.nonzero(as_tuple=True)
    places = batch.inputs["picked"][rows, columns] if "picked" in batch.inputs else columns
    labels[rows, places] = batch.labels[rows, columns]
    return MicroBatch({"tokens": tokens}, labels, batch.weights, batch.targets)
