"""What the fork server of `tests/ranks.py` imports once."""

import os
import warnings

warnings.filterwarnings("ignore")
os.environ["DS_ACCELERATOR"] = "cpu"

import megatron_patches.train  # noqa: E402, F401
