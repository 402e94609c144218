"""Streams that give no further sample."""

from megatron_patches.errors import TrainyardError


class EndOfData(TrainyardError):
    """All epochs that a source may be read are read."""

    def __init__(self, message: str, samples: int) -> None:
        super().__init__(message, samples)
        self.message = message
        self.samples = samples
        """that there were"""

    def __str__(self) -> str:
        return self.message


class NoSamples(TrainyardError):
    """A source has no documents, or a whole epoch of them makes no sample."""
