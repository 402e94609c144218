"""The kernel that a run names is the one that computes attention, with the same result; what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_patches.errors import TrainyardError
from megatron_patches.launch.device_checks import check_device
from megatron_patches.parallel import flash_attn_extra
from megatron_patches.parallel.attention_kernels import require_attention_kernel
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.reading import load_run
from megatron_patches.training.training_config import AttentionKernel
from tests.ranks import run_on_ranks
from tests.small_engine import record_steps, relative
from tests.small_run import write_run
from tests.small_training import SmallData, overrides


def run_kernels(kernel: AttentionKernel, compiled: bool) -> tuple[list[Any], set[str], int]:
    """Gradients, the names of the attention kernels that torch called, and graph breaks."""
    from collections import Counter

    from torch._dynamo.utils import counters
    from torch.profiler import profile

    from megatron_patches.models.gpt.gpt_config import GPTConfig
    from megatron_patches.models.layers.compilation import compile_blocks
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.kernels import Kernels
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(Layout(1, 1, 1), torch.float32, kernels=Kernels(attention=kernel))
    config = GPTConfig.model_validate(
        {"layers": 2, "hidden_size": 32, "attention_heads": 4, "key_value_heads": 2, "ffn_size": 64, "vocab_size": 64}
    )
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    model = plain_model(config, 16, groups, randomness)
    if compiled:
        compile_blocks(model, backend="aot_eager")
    tokens = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(1))
    with profile() as recorded:
        weighted_loss(model({"tokens": tokens}), (tokens, torch.ones(tokens.shape)), groups).backward()
    called = {event.key for event in recorded.key_averages() if event.key.startswith("aten::")}
    gradients = [parameter.grad.numpy() for parameter in model.parameters() if parameter.grad is not None]
    return gradients, called, Counter(counters["graph_break"]).total()


FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
def test_the_kernel_that_is_named_computes_attention(compiled: bool) -> None:
    found = {kernel: run_on_ranks(run_kernels, 1, kernel, compiled)[0] for kernel in ("auto", "flash", "math")}
    assert FLASH in found["flash"][1] and FLASH in found["auto"][1] and FLASH not in found["math"][1]
    assert all(breaks == 0 for _, _, breaks in found.values())
    for kernel in ("flash", "math"):
        for one, other in zip(found[kernel][0], found["auto"][0], strict=True):
            assert abs(one - other).max() < 1e-5  # of gradients up to 3


def test_a_run_trains_alike(small_data: SmallData, tmp_path: Path) -> None:
    arguments = (overrides(training__attention_kernel=kernel) for kernel in ("flash", "math"))
    flash, math = (run_on_ranks(record_steps, 1, small_data.run(tmp_path, each), 4)[0] for each in arguments)
    assert flash != math and relative(flash, math) < 1e-5


NEEDS_A_GPU = r"{} needs a GPU, and this machine has none; a CPU has flash and math: use one of them, or auto"


@pytest.mark.parametrize(
    ("arguments", "gpu", "message"),
    [
        ("cudnn", False, NEEDS_A_GPU.format("cudnn")),
        ("efficient", False, NEEDS_A_GPU.format("efficient")),
        ("flash --model.attention_dropout 0.1", False, "model.attention_dropout is 0.1; use auto or math"),
        ("flash", True, "flash takes 16 bits on a GPU, and training.precision is fp32; use efficient"),
        ("cudnn", True, "cudnn takes 16 bits on a GPU"),
        ("flash_attn", False, NEEDS_A_GPU.format("flash_attn")),
        ("flash_attn --training.precision bf16", True, r"not installed: pip install --no-build-isolation .*\[flash\]"),
        ("flash_attn", True, "flash_attn takes 16 bits, and training.precision is fp32"),
        ("flash", False, None),
        ("math --model.attention_dropout 0.1", False, None),
        ("efficient", True, None),
        ("flash --training.precision bf16 --model.attention_dropout 0.1", True, None),
    ],
)
def test_kernels_that_a_machine_lacks_are_refused(
    arguments: str, gpu: bool, message: str | None, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml")
    config = load_run(path, ["--training.attention_kernel", *arguments.split()])
    if message is None:
        check_device(config, gpu, [])
        return
    with pytest.raises(TrainyardError, match=message):
        check_device(config, gpu, [])


@pytest.mark.parametrize(
    ("arguments", "needing"),
    [
        ("--model.position_embedding alibi", "model.position_embedding alibi needs one"),
        ("--objective prefix_lm", "objective prefix_lm needs one"),
    ],
)
@pytest.mark.parametrize("kernel", ["flash", "flash_attn"])
def test_flash_takes_no_mask(kernel: str, arguments: str, needing: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml")
    with pytest.raises(TrainyardError, match=rf"{kernel} takes no mask.*{needing}; use efficient, math or auto"):
        load_run(path, ["--training.attention_kernel", kernel, *arguments.split()])


@pytest.mark.parametrize("kernel", ["flash", "flash_attn"])
def test_segments_need_no_mask(kernel: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml")
    load_run(path, ["--training.attention_kernel", kernel, "--objective.reset_attention", "true"])


def test_flash_attn_takes_no_large_heads(tmp_path: Path) -> None:
    path = write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml")
    with pytest.raises(TrainyardError, match=r"heads of at most 256 features, .*makes them 512; use auto"):
        load_run(path, ["--training.attention_kernel=flash_attn", "--model.hidden_size=2048"])


def test_a_rank_asks_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainyardError, match="this process sees none; use one of auto, flash, math"):
        require_attention_kernel("cudnn", torch.device("cpu"), torch.float32)
    with pytest.raises(TrainyardError, match="flash_attn needs a GPU"):
        require_attention_kernel("flash_attn", torch.device("cpu"), torch.bfloat16)
    with pytest.raises(TrainyardError, match="flash-attn, which is not installed"):
        require_attention_kernel("flash_attn", torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    require_attention_kernel("efficient", torch.device("cuda"), torch.float32)
    with pytest.raises(TrainyardError, match=r"flash needs .* 8\.0 or more, and this Some GPU has 7\.0; use efficient"):
        require_attention_kernel("flash", torch.device("cuda"), torch.float16)
    with pytest.raises(TrainyardError, match="cudnn takes 16 bits"):
        require_attention_kernel("cudnn", torch.device("cuda"), torch.float32)
    monkeypatch.setattr(flash_attn_extra, "find_spec", lambda name: name)
    with pytest.raises(TrainyardError, match=r"flash_attn needs .* 8\.0 or more, and this Some GPU has 7\.0"):
        require_attention_kernel("flash_attn", torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize(
    ("arguments", "gpu", "message"),
    [
        ("--training.compile_backend eager", False, "compile_backend eager has no effect on a CPU.*compile true"),
        ("--training.compile_dynamic true", False, "compile_dynamic true has no effect on a CPU"),
        ("--training.compile_dynamic true --parallel.zero_stage 3", True, "has no effect under ZeRO 3.*zero_stage 2"),
        ("--training.compile_dynamic true --training.compile true", False, None),
        ("--training.compile_backend aot_eager", True, None),
    ],
)
def test_how_blocks_are_compiled_is_said_where_they_are(
    arguments: str, gpu: bool, message: str | None, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml")
    config = load_run(path, arguments.split())
    if message is None:
        check_device(config, gpu, [])
        return
    with pytest.raises(TrainyardError, match=message):
        check_device(config, gpu, [])


@pytest.mark.parametrize("given", ["compile_backend=eager", "compile_dynamic=true"])
def test_how_blocks_are_compiled_goes_not_with_compile_false(given: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml")
    with pytest.raises(TrainyardError, match=f"{given.replace('=', ' ')} has no effect with compile false; remove it"):
        load_run(path, ["--training.compile=false", f"--training.{given}"])
