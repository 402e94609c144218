"""Contenders side by side: whole processes in turns over one text, their memory, and whether they made the same."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.benchmark.contenders import OURS, Contender, Task, contenders
from data_tools.benchmark.equality import Files, files_of, first_difference
from data_tools.benchmark.peer import CANNOT
from data_tools.benchmark.process_tree import Ended, run
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

_LEAST, _FOR_EACH_MB = 120.0, 10.0
"""seconds that a process may take; the slowest that was seen, Unigram by one record a call, takes 2 for each MB"""


@dataclass
class Measured:
    """What is known of one contender; the lists have a number for each round."""

    name: str
    what: str
    whole: list[float] = field(default_factory=list)
    """seconds of the process over the text, from its start to its exit"""
    start: list[float] = field(default_factory=list)
    """seconds of the same process over the text's first document: imports, loading, closing files"""
    cpu: list[float] = field(default_factory=list)
    """seconds of user and system, of all processes, over the text"""
    memory: int = 0
    """bytes, the most of all processes together, in a run of its own"""
    own_tokens: int | None = None
    """how many it made in place of ours, where its ids are its own; None: it made our files"""

    @property
    def work(self) -> list[float]:
        """Seconds beyond the start, of each round."""
        return [whole - start for whole, start in zip(self.whole, self.start, strict=True)]


@dataclass(frozen=True)
class Comparison:
    """What was measured; ours comes first."""

    measured: list[Measured]
    left_out: dict[str, str]
    """peers that could not be measured, and why"""
    files: Files
    """what ours made, and all of them that have no `own_tokens`"""


def compare(
    text: Path, task: Task, peers: Sequence[str], rounds: int, folder: Path, on_turn: Callable[[str], None]
) -> Comparison:
    """Runs all of them once for their memory, and in each round once over one document and once over the text.

    Who begins changes with each round. Every dataset is compared with ours of the first run, and deleted. Where a
    peer's ids may be its own, only the number of documents is compared.

    Args:
        text: `.jsonl` with the key `text`.
        rounds: may be 0; nothing is timed then.
        folder: for datasets and messages.
        on_turn: hears what comes next.

    Raises:
        TrainyardError: one of them fails, or makes another dataset.
    """
    found, left_out = contenders(task, peers)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        turns = _Turns(text, Path(place))
        measured = {}
        for each in found:
            on_turn(f"{each.name}: memory")
            ended, made = turns.over_the_text(each, memory=True)
            if made is None:
                left_out[each.name] = shortened(ended.said.splitlines()[-1])
                continue
            own = made.tokens if made != turns.files else None
            measured[each.name] = Measured(each.name, each.what, memory=ended.memory, own_tokens=own)
        found = [each for each in found if each.name in measured]
        for number in range(rounds):
            first = number % len(found)
            for each in [*found[first:], *found[:first]]:
                on_turn(f"{each.name}: round {number + 1} of {rounds}")
                turns.timed(each, measured[each.name])
        assert turns.files is not None
        return Comparison(list(measured.values()), left_out, turns.files)


class _Turns:
    """Runs of contenders over one text."""

    def __init__(self, text: Path, folder: Path) -> None:
        self._text, self._folder = text, folder
        self._limit = _LEAST + _FOR_EACH_MB * text.stat().st_size / 1e6
        self._prefix = folder / "made" / "text"
        self._prefix.parent.mkdir()
        self.files: Files | None = None
        self._ours = folder / "ours" / "text"
        self._one = folder / "one.jsonl"
        with text.open("rb") as lines:
            self._one.write_bytes(next(lines, b""))

    def timed(self, contender: Contender, measured: Measured) -> None:
        """One over a document, one over the text."""
        measured.start.append(self._run(contender, self._one, memory=False).seconds)
        self._remove()
        ended, _ = self.over_the_text(contender, memory=False)
        measured.whole.append(ended.seconds)
        measured.cpu.append(ended.cpu)

    def over_the_text(self, contender: Contender, memory: bool) -> tuple[Ended, Files | None]:
        """One over the text, compared with ours. Files are None where a peer cannot do it.

        Raises:
            TrainyardError: it made another dataset than ours.
        """
        ended = self._run(contender, self._text, memory)
        if ended.code == CANNOT:
            return ended, None
        made = files_of(self._prefix)
        if self.files is None:
            assert contender.name == OURS
            self.files = made
            self._prefix.parent.rename(self._ours.parent)
            self._prefix.parent.mkdir()
        elif made != self.files and not (contender.own_ids and made.documents == self.files.documents):
            raise TrainyardError(f"{contender.name}: {first_difference(self._ours, self._prefix)}")
        self._remove()
        return ended, made

    def _run(self, contender: Contender, text: Path, memory: bool) -> Ended:
        ended = run(contender.command(text, self._prefix), self._folder / "log", self._limit, memory)
        if ended.code not in (0, CANNOT):
            raise TrainyardError(f"{contender.name} failed with exit code {ended.code}: {ended.said}")
        return ended

    def _remove(self) -> None:
        """What was made, so that it is not written to the disk while the next one runs."""
        for file in self._prefix.parent.iterdir():
            file.unlink()
