"""`tools/tflops bench`: one configuration after the other, said and recorded."""

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_patches.benchmark.comparison import measure_run
from megatron_patches.benchmark.turns import Turns
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.rank_settings import available_cpus
from megatron_patches.report.record import append, measured
from megatron_patches.report.text import as_text
from megatron_patches.sizes import counted
from tools.run_files.catalogue import find_run


@dataclass(frozen=True)
class BenchRequest:
    """What to measure and how long."""

    arguments: list[str]
    """runs, then overrides of all of them"""
    peer: str | None
    variants: list[str]
    """overrides of one configuration each"""
    processes: int | None
    alternations: int
    steps: int
    warmup: int
    threads: int | None
    trace: Path | None
    record: Path | None
    table: str
    row: str

    def configurations(self) -> Iterator[tuple[Path, list[str]]]:
        """Every run with every variant."""
        first = next((number for number, each in enumerate(self.arguments) if each[:2] == "--"), len(self.arguments))
        if not first:
            raise TrainyardError(f"name a run before its overrides: {' '.join(self.arguments)}")
        for run in self.arguments[:first]:
            for variant in self.variants:
                yield find_run(run, CHECKOUT), [*self.arguments[first:], *shlex.split(variant)]


def measure_all(asked: BenchRequest, as_json: bool) -> bool:
    """Measure and print; whether all sides agreed with their peers."""
    turns = Turns(asked.alternations, asked.warmup, asked.steps)
    agree = True
    configurations = list(asked.configurations())
    if asked.row and len(configurations) > 1:
        raise TrainyardError(f"--row {asked.row} names one row, but these are {len(configurations)} configurations")
    for number, (path, overrides) in enumerate(configurations):
        print(
            f"{path.stem}: {turns.warmup} + {turns.alternations} turns of {counted(turns.steps, 'step')}",
            file=sys.stderr,
        )
        trace = asked.trace.with_stem(f"{asked.trace.stem}-{number}") if asked.trace and number else asked.trace
        found = measure_run(
            path, overrides, turns, asked.threads or available_cpus(), asked.peer, asked.processes, trace
        )
        agree = agree and found.agrees
        if as_json:
            print(json.dumps(asdict(found) | {"mfu": found.mfu, "agrees": found.agrees}))
        else:
            print(("\n" if number else "") + as_text(found))
        if asked.record is not None:
            command = ["tools/tflops", *sys.argv[1:]]
            append(asked.record, measured(asked.table, asked.row or _name(path, overrides), command, found))
    return agree


def _name(path: Path, overrides: list[str]) -> str:
    """A row's name: the run and what is changed of it."""
    return " ".join([path.stem, *overrides])
