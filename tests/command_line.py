"""Verbs in the test's own process: what they print and how they end, without the second that a process imports for.

Each verb has a test of the real executable beside those.
"""

from types import ModuleType
from typing import NamedTuple, Protocol

import pytest

from tools.command_line import run_app


class Done(NamedTuple):
    """How a verb ended, by the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


class Call(Protocol):
    """A verb that takes its arguments."""

    def __call__(self, *arguments: object) -> Done: ...


def verb(module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls `tools/<module>` as its executable does."""

    name = module.__name__.removesuffix(".command_line").rpartition(".")[2]

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["verb", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_app(module.app, name.replace("_", "-"))
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return call
