"""A tree beside the runs that nothing may touch, and what was touched all the same."""

import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECRET = b"-----BEGIN A SECRET KEY-----\n"

_watching: list["Place"] = []
_hooked = False


class Place:
    """`inside/` holds what a case is about, `outside/` what it must leave alone."""

    def __init__(self, root: Path) -> None:
        self.inside, self.outside = root / "inside", root / "outside"
        self.opened: list[str] = []
        """files outside that were opened while this place was watched"""
        victim = self.outside / "victim"
        (victim / "checkpoints" / "step-0000000100").mkdir(parents=True)
        (self.outside / "secret").write_bytes(SECRET)
        for path in (victim / "a", victim / "checkpoints" / "step-0000000100" / "manifest.json"):
            path.write_bytes(b"the victim's\n")
        self.inside.mkdir()
        self._before = self._state()

    def clear(self, path: Path) -> None:
        """Removes whatever is at a path inside, not what a link names."""
        assert path.parent.resolve().is_relative_to(self.inside.resolve()), path
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)

    def check(self) -> None:
        """Raises AssertionError if anything outside was changed, added or removed."""
        assert self._state() == self._before, "what lies outside was changed"

    def check_unread(self) -> None:
        """Raises AssertionError if a file outside was opened while this place was watched."""
        assert not self.opened, f"opened outside: {self.opened}"

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notes which files outside are opened meanwhile."""
        _hook()
        _watching.append(self)
        try:
            yield
        finally:
            _watching.remove(self)

    def _state(self) -> dict[str, tuple[int, str]]:
        found: dict[str, tuple[int, str]] = {}
        for folder, folders, files in os.walk(self.outside):
            for name in [*folders, *files]:
                path = Path(folder, name)
                status = path.lstat()
                content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
                found[str(path)] = (status.st_mode, hashlib.sha256(content).hexdigest())
        return found

    def note(self, path: str) -> None:
        """Keeps the name of an opened file that lies outside."""
        resolved = os.path.realpath(path)
        if resolved.startswith(f"{self.outside.resolve()}{os.sep}") and not Path(resolved).is_dir():
            self.opened.append(path)


def _hook() -> None:
    global _hooked
    if not _hooked:
        sys.addaudithook(_heard)  # it cannot be taken back, so it is one for all places
        _hooked = True


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watching and isinstance(arguments[0], str | bytes | os.PathLike):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        path = os.fsdecode(arguments[0])
        if not (flags & os.O_NOFOLLOW and Path(path).is_symlink()):
            for place in _watching:
                place.note(path)
