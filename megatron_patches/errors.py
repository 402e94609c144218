"""The package's own errors: shown as one message, never as a traceback."""

from collections.abc import Iterable


class TrainyardError(ValueError):
    """A user's mistake or a broken input: exit code 2. The message says what was wrong, where, and what to do."""


class Missing(TrainyardError):
    """What was named is not there: another name, or making it, is the remedy."""


class Damaged(TrainyardError):
    """What is there is not what was written: restoring it, or making it again, is the remedy."""


class Refused(TrainyardError):
    """What is there is whole, and must not be used, or done, as it was asked."""


class TrainingFailed(RuntimeError):
    """A run that was in order cannot go on: exit code 1. The message says what happened, where, and what to do."""


def refuse(problems: Iterable[str]) -> None:
    """Raise a TrainyardError that tells all of the problems, one a line; where there are none, nothing happens."""
    if told := "\n".join(problems):
        raise TrainyardError(told)
