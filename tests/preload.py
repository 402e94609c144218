"""What the fork server of `tests/ranks.py` imports once, and what it asks once, so that no rank does.

With it a rank's engine costs 0.2 s of CPU time where it cost 0.4, and under ZeRO 3 0.4 where it cost 1.1.
"""

import gc
import os
import warnings

warnings.filterwarnings("ignore")
os.environ["DS_ACCELERATOR"] = "cpu"

# what DeepSpeed imports when an engine is made
import deepspeed.comm.mori  # noqa: E402
import deepspeed.module_inject.auto_ep_layer  # noqa: E402
import deepspeed.ops  # noqa: E402
import deepspeed.runtime.superoffload.superoffload_stage3  # noqa: E402
import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: E402
import numpy.ma  # noqa: E402, F401
import torch.profiler._cupti_monitor  # noqa: E402, F401

import megatron_patches.training.train  # noqa: E402, F401
import tests.small_engine  # noqa: E402
import tests.small_training  # noqa: E402, F401

# DeepSpeed starts a compiler to see which of its extensions could be built: 0.15 s
assert deepspeed.ops.__compatible_ops__
# No rank's collector goes through the 800,000 objects of these modules, nor copies the pages they lie on.
gc.collect()
gc.freeze()
