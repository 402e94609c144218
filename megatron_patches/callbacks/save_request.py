"""A checkpoint on request: a file `save-requested` in the run's directory, with the reason in it."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from time import monotonic

from megatron_patches.artefacts.retention import ASKED_FOR
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.votes import Question

SECONDS_BETWEEN_LOOKS = 1.0  # one look at a shared file system a second, by rank 0 alone
LONGEST_REASON = 500  # characters
LONGEST_FILE = 1 << 16  # bytes; of a longer one nothing is read


class SaveRequest:
    """Rank 0 looks for the file, and all ranks answer it at the same step; it goes when the checkpoint is whole."""

    def __init__(self, path: Path, looks: bool, question: Question) -> None:
        self._path = path
        self._looks = looks
        self._question = question
        self._looked = 0.0
        self._answered: int | None = None
        """mtime, in nanoseconds, of the request that was answered last and still lies there; rank 0 alone"""
        self._reason: str | None = None
        """what the save that answers it is made for; rank 0 alone"""

    def answer(self, groups: ProcessGroups) -> str | None:
        """Why somebody wants the current step saved, on every rank; None where nobody does."""
        if self._question.verdict:
            self._question.verdict = 0
            reason: str | None = groups.from_rank_0(self._take() if self._looks else None)
            self._question.vote = 0
            return reason
        if self._looks and monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = monotonic()
            made = self._made()
            self._question.vote = int(made is not None and made != self._answered)
        return None

    def done(self, reasons: Collection[str]) -> None:
        """Saves made for these reasons are on the disk. If one is the answer the file goes, unless it was written anew.

        A save that was begun before it was asked for is no answer: the file outlives it.
        """
        if self._reason in reasons and self._made() == self._answered:
            with suppress(OSError):  # a folder, or what may not be removed: it is remembered as answered
                self._path.unlink()

    def _made(self) -> int | None:
        try:
            return self._path.lstat().st_mtime_ns
        except OSError:
            return None

    def _take(self) -> str | None:
        made = self._made()
        if made is None or made == self._answered:  # it was taken back, or answered while this vote was on its way
            return None
        self._answered = made
        text = printable(without_credentials(self._text()[:LONGEST_REASON]))
        self._reason = f"{ASKED_FOR}: {text}" if text else ASKED_FOR
        return self._reason

    def _text(self) -> str:
        """Of a plain file; a link, a pipe or a folder asks without a reason."""
        if self._path.is_symlink():
            return ""
        try:
            return read_bounded(self._path, LONGEST_FILE).decode(errors="replace").strip()
        except TrainyardError:
            return ""
