"""Places of a test alone."""

from pathlib import Path

import pytest

from tools.commands.sync_to_hub import command_line as sync_to_hub


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds runs, data, cache and checkout of this test."""
    for name in ("RUNS", "DATA", "CACHE"):
        monkeypatch.setenv(f"TRAINYARD_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(sync_to_hub, "CHECKOUT", tmp_path)
    return tmp_path
