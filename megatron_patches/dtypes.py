"""Types of stored numbers, by the names that configurations and safetensors files give them. Torch-free.

torch's own are in megatron_patches/parameters/torch_dtypes.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

BYTES_OF_PRECISION: Mapping[str, int] = MappingProxyType({"fp32": 4, "bf16": 2, "fp16": 2})
"""bytes of a number, by `training.precision`"""
PRECISION_OF_STORED: Mapping[str, str] = MappingProxyType({"F32": "fp32", "BF16": "bf16", "F16": "fp16"})
"""the precision that a safetensors file's name of a type means"""
BYTES_OF_STORED: Mapping[str, int] = MappingProxyType(
    {stored: BYTES_OF_PRECISION[precision] for stored, precision in PRECISION_OF_STORED.items()}
)
"""bytes of a number, by the name of its type in a safetensors file"""
