"""Where the cache lies, also for a user without a home or a name."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT, cache_root
from megatron_patches.errors import TrainyardError


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without anything; temporary files go to a folder of the test."""

    def no_entry(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "TRAINYARD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_is_named_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "trainyard"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_root() == Path("/cache/trainyard")
    monkeypatch.setenv("TRAINYARD_CACHE", "own")
    assert cache_root() == CHECKOUT / "own"


@pytest.mark.parametrize("home", [None, "", "/nonexistent"])
def test_without_a_home_it_is_temporary_and_ones_own(
    home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    folder = cache_root()
    assert folder == tmp_path / f"trainyard-{os.getuid()}" == cache_root()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_folder_that_another_user_laid_there_is_refused(kind: str, tmp_path: Path) -> None:
    planted = tmp_path / f"trainyard-{os.getuid()}"
    if kind == "link":
        (tmp_path / "victim").mkdir()
        planted.symlink_to(tmp_path / "victim")
    else:
        planted.touch()
    with pytest.raises(TrainyardError, match="export TRAINYARD_CACHE=FOLDER"):
        cache_root()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder needs root")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / f"trainyard-{os.getuid()}"
    planted.mkdir()
    os.chown(planted, 12345, 12345)
    with pytest.raises(TrainyardError, match="it is another user's"):
        cache_root()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes a user without a name, which only root can"
)
def test_a_command_of_a_user_without_home_and_name(tmp_path: Path) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "TRAINYARD_PYTHON": sys.executable, "TRAINYARD_RUNS": str(tmp_path / "none")}
    command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "tools/inventory", "list"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
