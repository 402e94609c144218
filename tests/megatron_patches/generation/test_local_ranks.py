"""What is refused before a process is started."""

from types import SimpleNamespace
from typing import Any

from tests.ranks import run_on_ranks


def refusals() -> list[str]:
    """On a machine of three GPUs, and of an architecture that keeps no keys."""
    import torch

    from megatron_patches.errors import Refused
    from megatron_patches.generation.local_ranks import LocalRanks
    from megatron_patches.generation.model_ranks import ModelRanks

    torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 3
    keyless: Any = SimpleNamespace(readings=SimpleNamespace(keeps_keys=False))
    groups: Any = None  # asking it anything would be a message to the others
    LocalRanks(3, 1)
    told = []
    for ask in (
        lambda: LocalRanks(4),
        lambda: LocalRanks(1, 4),
        lambda: LocalRanks(2, 3),
        lambda: ModelRanks(keyless, groups).begin(1, 8),
    ):
        try:
            ask()
        except Refused as error:
            told.append(str(error))
    return told


def test_refusals_come_before_anything_is_started() -> None:
    tensor, stages, both, keys = run_on_ranks(refusals, 1)[0]
    assert tensor.startswith("--tensor-parallel 4 needs 4 GPUs, and this machine shows 3; give fewer")
    assert stages.startswith("--pipeline-parallel 4 needs 4 GPUs, and this machine shows 3; give fewer")
    assert both.startswith("--tensor-parallel 2 x --pipeline-parallel 3 needs 6 GPUs, and this machine shows 3; give")
    assert "keeps no keys and values" in keys
