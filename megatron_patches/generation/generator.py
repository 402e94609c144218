"""Continuations of ids, several at once, each as if it were alone.

The model sees at most `window` ids, as many as its samples had. Of a longer prompt it sees the last ones. Where one
more would not fit, the oldest quarter of the window is forgotten, and the rest is read from its beginning. Then four
ids are read for each that is written, and at least three quarters of the window are always seen. All of it depends on
the text itself alone.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from megatron_patches.generation.model_on_rank import Texts
from megatron_patches.generation.model_ranks import ModelRanks
from megatron_patches.generation.sampling import Sampling, choose

Ending = Literal["end", "stop", "length"]
"""why a continuation ends: the model ended it, whoever heard its ids said so, or there were enough of them"""

Listener = Callable[[int, int], bool]
"""hears (number of the prompt, id that follows) and says whether the text goes on"""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: one id or more. The same prompt and seed give the same ids, whatever is beside them."""

    ids: Sequence[int]
    seed: int


class _Row:
    """A text that is being written."""

    def __init__(self, number: int, prompt: Prompt, window: int) -> None:
        self.number = number
        self.written = 0
        self.seen = list(prompt.ids[-window:])
        self.prefix = len(self.seen)
        self.must_read = True
        self.generator = torch.Generator().manual_seed(prompt.seed)
        self._window = window

    def add(self, chosen: int) -> None:
        self.written += 1
        self.seen.append(chosen)
        self.must_read = len(self.seen) > self._window
        if self.must_read:
            forgotten = len(self.seen) - (self._window - self._window // 4)
            self.seen = self.seen[forgotten:]
            self.prefix = max(0, self.prefix - forgotten)


class Generator:
    """Writes on with a model.

    Args:
        window: most ids that the model sees.
        known_ids: ids that stand for text; no other is chosen.
        ends: ids that end a text, and are no part of it.
    """

    def __init__(self, ranks: ModelRanks, window: int, known_ids: int, ends: Collection[int]) -> None:
        self._ranks = ranks
        self._window = window
        self._known_ids = known_ids
        self._ends = frozenset(ends)

    def generate(self, prompts: Sequence[Prompt], tokens: int, sampling: Sampling, hear: Listener) -> list[Ending]:
        """Up to `tokens` further ids of each prompt, all prompts at once; `hear` gets them one by one.

        Raises:
            Refused: the model's architecture cannot continue texts.
        """
        rows = [_Row(number, prompt, self._window) for number, prompt in enumerate(prompts)]
        endings: list[Ending] = ["length"] * len(rows)
        self._ranks.begin(len(rows), min(self._window, max(len(row.seen) for row in rows) + tokens - 1))
        while rows:
            logits = self._logits(rows)[:, : self._known_ids]
            chosen = choose(logits, sampling, [row.generator for row in rows])
            going_on = []
            for place, (row, number) in enumerate(zip(rows, chosen, strict=True)):
                ending = self._take(row, number, tokens, hear)
                endings[row.number] = ending or "length"
                if ending is None:
                    going_on.append(place)
            if going_on and len(going_on) < len(rows):
                self._ranks.select(going_on)
            rows = [rows[place] for place in going_on]
        self._ranks.end()
        return endings

    def _take(self, row: _Row, chosen: int, tokens: int, hear: Listener) -> Ending | None:
        """Why the text ends with a chosen id, if it does."""
        if chosen in self._ends:
            return "end"
        row.add(chosen)
        if not hear(row.number, chosen):
            return "stop"
        return "length" if row.written >= tokens else None

    def _logits(self, rows: Sequence[_Row]) -> Tensor:
        """After the last id of each row. Rows that go on are read apart from those that begin."""
        reading = [place for place, row in enumerate(rows) if row.must_read]
        following = [place for place, row in enumerate(rows) if not row.must_read]
        if not reading:
            return self._follow(None, rows)
        if not following:
            return self._read(None, rows)
        parts = self._follow(following, rows), self._read(reading, rows)
        logits = torch.empty((len(rows), parts[0].shape[1]), device=parts[0].device)
        for places, part in zip((following, reading), parts, strict=True):
            logits[places] = part
        return logits

    def _follow(self, places: Sequence[int] | None, rows: Sequence[_Row]) -> Tensor:
        chosen = rows if places is None else [rows[place] for place in places]
        return self._ranks.follow(places, [row.seen[-1] for row in chosen], [len(row.seen) - 1 for row in chosen])

    def _read(self, places: Sequence[int] | None, rows: Sequence[_Row]) -> Tensor:
        chosen = rows if places is None else [rows[place] for place in places]
        return self._ranks.read(places, Texts([row.seen for row in chosen], [row.prefix for row in chosen]))
