"""Floating-point work of a training step, and what a GPU could do at most. Torch-free."""

from megatron_patches.models.model_config import ModelConfig

# Dense bf16 and fp16 peaks, TFLOP/s, from NVIDIA's data sheets, by the driver's name; no other GPU has an MFU.
PEAK_TFLOPS = {
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
}


def training_flops_per_token(model: ModelConfig, sequence_length: int) -> float:
    """FLOPs of forward and backward pass for one token, without recomputation.

    BigScience's exact formula for the layers, with the MLP at its own width and the keys and values at theirs, and the
    logits as they are computed (theirs holds for them only with recomputation). A layer's forward pass costs
    4h^2 (queries and output) + 4h*kv (keys and values; kv = h unless heads share them) + 4sh (scores and their use;
    causal attention is not halved) + 4h*ffn (two matrices; 6h*ffn for the three of a gated MLP), the logits 2hV; a
    backward pass costs twice that.
    """
    hidden = model.hidden_size
    projections = 4 * hidden**2 + 4 * hidden * model.groups * model.head_size
    scores = 4 * sequence_length * hidden
    mlp = (6 if model.gated else 4) * hidden * model.ffn_size
    return 3.0 * (model.layers * (projections + scores + mlp) + 2 * hidden * model.padded_vocab_size)


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Peak of a GPU in a run's precision, or None where it is not known for certain."""
    return PEAK_TFLOPS.get(device_name) if precision in ("bf16", "fp16") else None
