"""A bar for the bytes that move and a table of what became of everything."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.sizes import readable
from tools.commands.sync_to_hub.run import Line
from tools.tables import print_table


@contextmanager
def metered(bytes_per_second: float | None) -> Iterator[Meter]:
    """A meter that draws a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield Meter(bytes_per_second)
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TimeElapsedColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), "moved", DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("moved", total=None)
        yield Meter(bytes_per_second, lambda size: progress.advance(bar, size))


def summarize(lines: Iterable[Line], as_json: bool) -> int:
    """Prints what became of each artefact as it is known, and a table at the end.

    Returns:
        Exit code: 0 where all went well, 1 where something failed, 2 where nothing went well, and nothing will at
        another try until somebody does something about it.
    """
    started = time.monotonic()
    seen: list[Line] = []
    for line in lines:
        seen.append(line)
        if line.problem:
            about = " ".join(part for part in (line.run, line.name) if part)
            print(f"{about + ': ' if about else ''}{line.word}: {line.problem}", file=sys.stderr)
    if as_json:
        print(json.dumps([line.as_json() for line in seen], indent=2))
    elif seen:
        rows = [[line.run, line.name, line.word, str(line.files), readable(line.size), line.location] for line in seen]
        print_table(["run", "artefact", "what happened", "files", "moved", "location"], rows, numbers={3, 4})
        seconds, moved = time.monotonic() - started, sum(line.size for line in seen)
        speed = f", {readable(int(moved / seconds))}/s" if moved and seconds else ""
        print(f"{len(seen)} looked at, {readable(moved)} moved in {seconds:.1f} s{speed}", file=sys.stderr)
    else:
        print("nothing is chosen", file=sys.stderr)
    if not any(line.problem for line in seen):
        return 0
    return 2 if all(line.problem and line.lasting for line in seen) else 1
