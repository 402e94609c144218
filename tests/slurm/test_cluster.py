"""Where the test cluster cannot start, its tests are skipped by name with the remedy."""

import os
import shutil

import pytest

from tests.slurm.cluster import reason_not_to_start


def test_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "slurmd" else f"/usr/sbin/{name}")
    assert reason_not_to_start() == "no slurmd on this machine: `make slurm-packages` installs SLURM"


def test_only_root_can_make_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "run as root" in (reason_not_to_start() or "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert reason_not_to_start() is None
