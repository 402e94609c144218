"""An encoder in a line: what is there always, then what differs from NeoBERT."""

from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.transformer.summary import described_size, described_switches


def describe_encoder(model: EncoderConfig) -> str:
    """For example `encoder, 12 blocks, width 768, 12 heads, rotary, swiglu 2048, rmsnorm, tied decoder`."""
    switches = {
        "post-norm": model.norm_placement == "post",
        "parallel residual": model.parallel_residual,
        "embedding norm": model.embedding_norm,
        "query-key norm": model.query_key_norm,
        "biases in attention": model.attention_bias,
        "biases in MLP": model.mlp_bias,
        "tied decoder": model.tied_head,
        "untied decoder": not model.tied_head,
        "decoder bias": model.decoder_bias,
    }
    return ", ".join(["encoder", *described_size(model), *described_switches(model, switches)])
