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


MOST_TOLD = 30
"""problems of one file or command line that are told at once"""


def listed(problems: Iterable[str]) -> str:
    """The problems, one a line: the first of them, and how many more there are."""
    all_of_them = list(problems)
    more = len(all_of_them) - MOST_TOLD
    return "\n".join([*all_of_them[:MOST_TOLD], *([f"and {more:,} more like these"] if more > 0 else [])])


def refuse(problems: Iterable[str]) -> None:
    """Raise a TrainyardError that tells the problems, one a line; where there are none, nothing happens."""
    if told := listed(problems):
        raise TrainyardError(told)
