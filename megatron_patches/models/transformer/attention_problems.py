"""What attention's kernels cannot do of what a run asks for. Torch-free."""

from collections.abc import Iterator

from megatron_patches.configuration.problems import Problem
from megatron_patches.models.interface.architecture import Workload
from megatron_patches.models.layers.transformer_config import TransformerConfig

_LARGEST_HEAD = 256
"""features of a head that flash-attn takes"""


def attention_problems(model: TransformerConfig, work: Workload) -> Iterator[Problem]:
    """Kernels that take no mask and no bias, where the run needs one; heads that are too large."""
    kernel = work.training.attention_kernel
    if kernel not in ("flash", "flash_attn"):
        return
    masked = {
        "model.position_embedding alibi": model.position_embedding.name == "alibi",
        "objective prefix_lm": work.inputs.attention == "ranges",
    }
    needing = [what for what, is_so in masked.items() if is_so]
    if needing:
        yield Problem(
            "training.attention_kernel",
            f"training.attention_kernel {kernel} takes no mask and no bias on a GPU, and {' and '.join(needing)} needs "
            "one; use efficient, math or auto",
        )
    if kernel == "flash_attn" and model.head_size > _LARGEST_HEAD:
        yield Problem(
            "training.attention_kernel",
            f"training.attention_kernel flash_attn takes heads of at most {_LARGEST_HEAD} features, and "
            f"model.hidden_size {model.hidden_size} over model.attention_heads {model.attention_heads} makes them "
            f"{model.head_size}; use auto, or more heads",
        )
