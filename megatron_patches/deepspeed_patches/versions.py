"""The DeepSpeed that the patches in this folder were written for."""

import deepspeed

TESTED_DEEPSPEED = "0.19.8"


def require_tested_deepspeed() -> None:
    """Raise RuntimeError under another DeepSpeed: the patches reach into its internals."""
    if deepspeed.__version__ != TESTED_DEEPSPEED:
        raise RuntimeError(
            f"DeepSpeed {deepspeed.__version__} is installed; megatron_patches/deepspeed_patches is written for "
            f"{TESTED_DEEPSPEED}: pip install -c constraints.txt deepspeed=={TESTED_DEEPSPEED}"
        )
