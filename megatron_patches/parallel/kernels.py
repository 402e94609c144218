"""Which kernels a rank's matrices and attention are computed with. Torch-free."""

from dataclasses import dataclass
from typing import Literal

from megatron_patches.training.training_config import AttentionKernel, TrainingConfig


@dataclass(frozen=True)
class Kernels:
    """What a run asks for; the defaults are what every other process takes."""

    fp8: Literal["none", "tensorwise"] = "none"
    attention: AttentionKernel = "auto"


USUAL_KERNELS = Kernels()


def kernels_of(training: TrainingConfig) -> Kernels:
    """Those that a run's `training:` section names."""
    return Kernels(fp8=training.fp8, attention=training.attention_kernel)
