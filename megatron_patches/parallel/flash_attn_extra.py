"""The extra that brings the package flash-attn: whether it is here and can be used. Torch-free."""

from collections.abc import Iterator
from importlib.util import find_spec

INSTALL = "pip install --no-build-isolation -c constraints.txt -e .[flash]"
"""builds the package on the machine, with its CUDA compiler and the installed torch"""


def flash_attn_problems(gpu: bool, fp32: bool) -> Iterator[str]:
    """Why a process with or without a `gpu`, whose activations are fp32 or of 16 bits, cannot use it."""
    if not gpu:
        yield (
            "training.attention_kernel flash_attn needs a GPU, and this machine has none; a CPU has flash and math: "
            "use one of them, or auto"
        )
    elif find_spec("flash_attn") is None:
        yield f"training.attention_kernel flash_attn needs flash-attn, which is not installed: {INSTALL}; or use flash"
    if fp32:
        yield (
            "training.attention_kernel flash_attn takes 16 bits, and training.precision is fp32; use auto, or "
            "precision bf16"
        )
