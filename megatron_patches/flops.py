"""Floating-point work of a training step, and what a GPU could do at most. Torch-free."""

from megatron_patches.models.model_config import ModelConfig

# Dense bf16 peaks, TFLOP/s, from NVIDIA's data sheets, by the name that the driver gives; no other GPU has an MFU.
PEAK_BF16_TFLOPS = {
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
}


def training_flops_per_token(model: ModelConfig, sequence_length: int) -> float:
    """FLOPs of forward and backward pass for one token, without recomputation.

    BigScience's exact formula for the layers, with the MLP at its own width, and the logits as they are computed
    (theirs holds for them only with recomputation): a layer's forward pass costs
    8h^2 (projections) + 4sh (scores and their use; causal attention is not halved) + 4h*ffn, the logits 2hV; a backward
    pass twice that.
    """
    hidden = model.hidden_size
    layer = 8 * hidden**2 + 4 * sequence_length * hidden + 4 * hidden * model.ffn_size
    return 3.0 * (model.layers * layer + 2 * hidden * model.vocab_size)


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Peak of a GPU in a run's precision, or None where it is not known for certain."""
    return PEAK_BF16_TFLOPS.get(device_name) if precision == "bf16" else None
