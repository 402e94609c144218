"""Which code made an artefact: the checkout's revision and the versions of what it used, or why they are not known."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Revision:
    """The state of a checkout, or why git does not tell it."""

    text: str | None
    """commit, with `+changes` where the files differ from it; None where it is not known"""
    missing: str | None = None
    """why it is not known"""


def revision(checkout: Path) -> Revision:
    """The revision of a checkout, whoever owns it."""
    try:
        top, head = _git(checkout, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        # an unpacked archive may lie inside another repository, whose revision says nothing about it
        if Path(top) != checkout.resolve() and not _git(checkout, "ls-files", "--", "."):
            return Revision(None, f"{checkout} is not part of a git repository")
        changes = _git(checkout, "status", "--porcelain")
    except FileNotFoundError:
        return Revision(None, "git is not installed here")
    except subprocess.CalledProcessError as error:
        return Revision(None, _complaint(error, checkout))
    except (OSError, ValueError) as error:
        return Revision(None, f"git does not answer in {checkout}: {error}")
    return Revision(f"{head}+changes" if changes else head)


def known_revision(checkout: Path) -> Revision:
    """The same, and where it is not known, this process says so on stderr, once for each reason."""
    found = revision(checkout)
    if found.missing:
        _say_once(found.missing)
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose code decides what an artefact holds."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "trainyard"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"  # a checkout may run without being installed
    return found


def _git(checkout: Path, *arguments: str) -> str:
    # Git refuses the repository of another user, because its hooks and settings would run as this one. The code of
    # this checkout runs as this user already, and of its repository only data is read. Variables of a git that started
    # this process (a hook) would name another repository.
    settings = ["-c", f"safe.directory={checkout.resolve()}", "-c", "core.fsmonitor=false"]
    foreign = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(
        ["git", "--no-optional-locks", *settings, *arguments], cwd=checkout, check=True, capture_output=True,
        text=True, errors="replace", env={**environment, "LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout.strip()


def _complaint(error: subprocess.CalledProcessError, checkout: Path) -> str:
    said = [line for line in str(error.stderr).splitlines() if line.startswith(("fatal: ", "error: "))]
    if any("not a git repository" in line for line in said):
        return f"{checkout} is not part of a git repository"
    return f"git does not tell it in {checkout} ({said[0] if said else f'exit code {error.returncode}'})"


@cache
def _say_once(missing: str) -> None:
    print(f"note: the code's revision is not recorded: {missing}", file=sys.stderr)
