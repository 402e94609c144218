"""The nearest orthogonal matrix, by products of matrices alone."""

import torch
from torch import Tensor

# Coefficients of the quintic that Jordan et al. 2024 chose ("Muon: An optimizer for hidden layers in neural networks"):
# steep at zero, so that small singular values rise quickly; it ends between about 0.7 and 1.2, not at 1 itself.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LEAST_NORM = 1e-7


def working_type(device: torch.device) -> torch.dtype:
    """bf16 on a GPU, which the iteration tolerates; a CPU multiplies fp32 as fast."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """`[rows, columns]` -> the same shape, singular vectors kept and singular values moved to about 1.

    Returned in the working type of the device. A matrix of zeros stays one.
    """
    tall = matrix.size(0) > matrix.size(1)
    iterate = (matrix.T if tall else matrix).to(working_type(matrix.device))
    iterate = iterate / iterate.norm().clamp(min=LEAST_NORM)  # no singular value above 1
    linear, cubic, quintic = COEFFICIENTS
    for _ in range(steps):
        gram = iterate @ iterate.T
        polynomial = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        iterate = torch.addmm(iterate, polynomial, iterate, beta=linear)
    return iterate.T if tall else iterate
