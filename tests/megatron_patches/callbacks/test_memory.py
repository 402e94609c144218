"""Memory with each step."""

import os

import pytest
import torch

from megatron_patches.training.memory import memory_in_use


def test_a_cpus_process_grows_by_what_it_holds() -> None:
    before = memory_in_use(torch.device("cpu"))
    held = bytearray(os.urandom(1024)) * (64 * 1024)
    after = memory_in_use(torch.device("cpu"))
    assert before is not None and after is not None
    assert after - before == pytest.approx(len(held), rel=0.2)


def test_a_gpus_is_what_torch_counts_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device itself is not asked, so nothing waits for it."""

    def refuse(*_: object) -> None:
        raise AssertionError("the device was asked")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 12_000)
    assert memory_in_use(torch.device("cuda", 0)) == 12_000
