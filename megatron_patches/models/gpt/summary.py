"""A GPT in a line: what is there always, then what differs from GPT-2."""

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.transformer.summary import described_size, described_switches


def describe_gpt(model: GPTConfig) -> str:
    """For example `24 blocks, width 2048, 16 heads (4 key/value), rotary, swiglu 5504, rmsnorm, untied head`."""
    biases = {"attention": model.attention_bias, "MLP": model.mlp_bias}
    if model.norm == "layernorm":  # the other kind has none
        biases["norms"] = model.norm_bias
    without = [part for part, has_bias in biases.items() if not has_bias]
    switches = {
        "post-norm": model.norm_placement == "post",
        "parallel residual": model.parallel_residual,
        "embedding norm": model.embedding_norm,
        "query-key norm": model.query_key_norm,
        f"no biases in {', '.join(without)}": bool(without),
        "untied head": not model.tied_head,
    }
    return ", ".join([*described_size(model), *described_switches(model, switches)])
