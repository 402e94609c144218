"""The package's own errors: shown as one message, never as a traceback."""

from collections.abc import Iterable


class TrainyardError(ValueError):
    """A user's mistake or a broken input: exit code 2. The message says what was wrong, where, and what to do."""


class TrainingFailed(RuntimeError):
    """A run that was in order cannot go on: exit code 1. The message says what happened, where, and what to do."""


def refuse(problems: Iterable[str]) -> None:
    """Raise a TrainyardError that tells all of the problems, one a line; where there are none, nothing happens."""
    if told := "\n".join(problems):
        raise TrainyardError(told)
