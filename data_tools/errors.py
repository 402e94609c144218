"""The package's own error: shown as one message with exit code 2, never as a traceback."""


class TrainyardError(ValueError):
    """A user's mistake or a broken input. The message says what was wrong, where, and what to do about it."""
