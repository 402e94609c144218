"""torch's types by the names that configurations and safetensors files give them (megatron_patches/dtypes.py)."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from megatron_patches.dtypes import PRECISION_OF_STORED

PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)
"""by `training.precision`"""
STORED: Mapping[str, torch.dtype] = MappingProxyType(
    {stored: PRECISIONS[precision] for stored, precision in PRECISION_OF_STORED.items()}
)
"""by the name in a safetensors file"""
STORED_NAMES: Mapping[torch.dtype, str] = MappingProxyType({dtype: stored for stored, dtype in STORED.items()})
"""the name in a safetensors file"""
