"""The text of ids that come one by one: no half characters, and an end where a stop string is complete."""

from collections.abc import Sequence

from data_tools.text.tokenizer import Tokenizer

UNFINISHED = "\ufffd"
"""what a decoder writes for bytes that are no whole character, which the next token's may complete"""

LOOKED_BACK = 12
"""ids before the new ones that are decoded again: more than a character and its neighbours have"""


class WrittenText:
    """What follows a prompt. Stop strings are found across tokens; what comes after one is no part of the text.

    Args:
        context: ids of the prompt, since how a token is written may depend on the one before it; of an empty prompt
            none.
        stops: strings that end the text, none of them empty.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int], stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._ids = list(context[-LOOKED_BACK:])
        self._read = len(self._ids)
        self._known = ""
        self._pending = ""
        self._told = 0
        self.stopped = False
        """whether a stop string is complete"""

    @property
    def text(self) -> str:
        """All of it so far, without the stop string."""
        return self._known + self._pending

    def add(self, chosen: int) -> None:
        """Takes the next id; it is ignored once the text has stopped."""
        if self.stopped:
            return
        self._ids.append(chosen)
        before = self._tokenizer.decode(self._ids[: self._read])
        new = self._tokenizer.decode(self._ids)[len(before) :]
        searched = len(self._known)
        if new.endswith(UNFINISHED):
            self._pending = new
        else:
            self._known, self._pending = self._known + new, ""
            self._ids = self._ids[-LOOKED_BACK:]
            self._read = len(self._ids)
        self._cut_at_stop(searched)

    def _cut_at_stop(self, searched: int) -> None:
        """Looks for stop strings that end in what is new."""
        text = self.text
        longest = max(map(len, self._stops), default=0)
        found = [(stop, text.find(stop, max(0, searched - longest + 1))) for stop in self._stops]
        complete = [(place + len(stop), place) for stop, place in found if place >= 0]
        if complete:  # the one that is complete first counts, whatever tokens it came in
            _, place = min(complete)
            self._known, self._pending, self.stopped = text[:place], "", True

    def news(self, is_over: bool = False) -> str:
        """What can be shown since the last call: no half character, and nothing that may become a stop string, unless
        the text is over.
        """
        whole = is_over or self.stopped
        end = len(self.text) if whole else len(self._known) - self._held_back()
        shown = self.text[self._told : end]
        self._told = max(self._told, end)
        return shown

    def _held_back(self) -> int:
        """Characters at the end with which a stop string may begin."""
        beginnings = (size for stop in self._stops for size in range(1, len(stop)) if self._known.endswith(stop[:size]))
        return max(beginnings, default=0)
