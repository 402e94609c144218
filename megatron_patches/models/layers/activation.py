"""Non-linearities of the MLP, by the name a run gives them."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor


def _unchanged(features: Tensor) -> Tensor:
    return features


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # GPT-2's approximation (Hendrycks and Gimpel 2016, section 2)
    "relu": F.relu,
    # what a gated MLP does to its first half, which then multiplies the second (Shazeer 2020, section 2)
    "liglu": _unchanged,
    "geglu": F.gelu,
    "reglu": F.relu,
    "swiglu": F.silu,
}
