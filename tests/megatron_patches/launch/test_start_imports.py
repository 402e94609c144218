"""What a rank does not import before its first step, and the patches that see to it (ARCHITECTURE.md, "Start-up")."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import to_yaml
from tests.small_training import SmallData, overrides

UNUSED = (
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.tensor",
    "sympy",
    "wandb",
    "transformer_engine",
)


def run_python(code: str) -> str:
    """What a fresh interpreter prints, without the warnings of the libraries."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(code: str) -> set[str]:
    """Which of the unused packages a fresh interpreter has loaded after this."""
    return set(run_python(f"import sys\n{code}\nprint(*({UNUSED!r} & sys.modules.keys()))").split())


TWO_STEPS = """
import sys
from pathlib import Path
from megatron_patches.run.reading import load_resolved
from tests.small_engine import SmallEngine
small = SmallEngine(load_resolved(Path(sys.argv[1])))
small.train(2)
small.batches.close()
print("loaded", *sys.modules)
"""


def loaded_after_two_steps(config: RunConfig, folder: Path) -> list[set[str]]:
    """Which of them each of two ranks has that has trained, in an interpreter of its own: the fork server of
    `tests.ranks` has imported more than a launch does. Not under ZeRO 1 and above, where DeepSpeed compiles a function.
    """
    (folder / "resolved.yaml").write_text(to_yaml(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    settings = {"PYTHONPATH": str(CHECKOUT), "DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_STEPS, str(folder / "resolved.yaml")], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **settings, **place, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    return [set(UNUSED) & set(text.splitlines()[-1].split()) for text in said]


@pytest.mark.parametrize(
    ("layout", "loaded"),
    [
        ({"parallel__tensor": 2}, set()),
        ({"parallel__pipeline": 2}, {"sympy"}),  # by torch's `skip_init` of matrices that a rank has alone
    ],
    ids=["tensor", "pipeline"],
)
def test_a_rank_trains_without_what_it_does_not_use(
    small_data: SmallData, tmp_path: Path, layout: dict[str, int], loaded: set[str]
) -> None:
    config = small_data.run(tmp_path, overrides(training__precision="fp32", **layout))
    assert loaded_after_two_steps(config, tmp_path) == [loaded, loaded]


class TestMegatronCore:
    """megatron_core_patches/narrow_import.py"""

    def test_left_to_itself_it_imports_what_is_not_used(self) -> None:
        loaded = loaded_by("import megatron.core.tensor_parallel.layers")
        assert {"torch._dynamo", "wandb"} <= loaded, "megatron-core is narrow now: remove narrow_import.py"

    def test_with_the_patch_it_imports_none_of_it(self) -> None:
        assert loaded_by("import megatron_patches.parallel.megatron_core") == set()

    def test_everything_can_be_imported_afterwards(self) -> None:
        """Modules, names of packages whose code had to wait, and what was absent or left undecorated; no copies."""
        run_python("""
from megatron_patches.parallel import megatron_core as ours
from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator
from megatron.core.datasets.indexed_dataset import IndexedDataset
import megatron.core
try:
    megatron.core.no_such_name
except AttributeError:
    pass
else:
    raise AssertionError("a name that is nowhere")
from megatron.core.tensor_parallel import ColumnParallelLinear, vocab_parallel_cross_entropy
assert ColumnParallelLinear is ours.ColumnParallelLinear
assert megatron.core.parallel_state is megatron.core.mpu is ours.parallel_state
assert megatron.core.DistributedDataParallel and megatron.core.utils.divide(4, 2) == 2
from megatron.core.transformer.utils import erf_gelu, make_sharded_tensors_for_checkpoint
from megatron.core.dist_checkpointing import load
from megatron.core.optimizer.grad_scaler import DynamicGradScaler
import torch, torch.distributed._tensor, wandb
assert hasattr(erf_gelu, "_torchdynamo_orig_callable"), "megatron-core's torch.compile is back"
assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item() == 2
""")

    def test_where_it_was_imported_before_nothing_is_changed(self) -> None:
        run_python("""
import sys, types
sys.modules["megatron.core"] = core = types.ModuleType("megatron.core")
before = dict(sys.modules)
from megatron_patches.megatron_core_patches.narrow_import import narrow_import
with narrow_import():
    assert sys.modules["megatron.core"] is core and None not in sys.modules.values()
assert not [name for name in sys.modules.keys() - before.keys() if name.startswith("megatron.")]
""")

    def test_a_failure_within_leaves_nothing_hidden(self) -> None:
        run_python("""
import sys
from megatron_patches.megatron_core_patches.narrow_import import narrow_import
try:
    with narrow_import():
        import megatron.core.nothing
except ModuleNotFoundError:
    pass
assert None not in sys.modules.values() and "megatron.core.transformer" not in sys.modules
from megatron.core.jit import jit_fuser
import torch
assert jit_fuser is torch.compile
""")

    def test_one_module_of_ours_imports_it(self) -> None:
        """Any other would bring all of it, if it came first."""
        importing = {
            str(file.relative_to(CHECKOUT))
            for folder in ("megatron_patches", "tools")
            for file in sorted((CHECKOUT / folder).rglob("*.py"))
            if "from megatron.core" in file.read_text() or "import megatron.core" in file.read_text()
        }
        assert importing == {
            "megatron_patches/megatron_core_patches/narrow_import.py",
            "megatron_patches/parallel/megatron_core.py",
        }


STEPS = """
import sys, torch
from torch.optim import SGD, AdamW
{patch}
torch.manual_seed(0)
for kind, options in ((AdamW, dict(fused=True, weight_decay=0.1)), (SGD, dict(fused=True, momentum=0.9))):
    weight = torch.nn.Parameter(torch.randn(64))
    optimizer = kind([weight], lr=0.1, **options)
    for _ in range(3):
        weight.pow(3).sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.zero_grad()
    assert torch.is_grad_enabled() and weight.grad is None
    print(weight.double().sum().item())
print("torch._dynamo" in sys.modules)
"""
PATCH = (
    "from megatron_patches.torch_patches.eager_optimizers import run_optimizers_eagerly as patch\n"
    "patch()\n"
    "patch()  # once for each engine of a process"
)

COMPILE_LATER = """
assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item() == 2
optimizer.step()
optimizer.zero_grad()
"""


class TestOptimizers:
    """torch_patches/eager_optimizers.py"""

    def test_they_step_as_ever_without_dynamo(self) -> None:
        """And with it, when something is compiled later."""
        theirs = run_python(STEPS.format(patch="")).split()
        ours = run_python(STEPS.format(patch=PATCH) + COMPILE_LATER).split()
        assert theirs[:-1] == ours[:-1]
        assert theirs[-1] == "True", "torch needs no Dynamo for a step now: remove eager_optimizers.py"
        assert ours[-1] == "False"
