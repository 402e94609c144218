"""How fast a run trains, measured beside something else."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tools.command_line import run_app

CHECKOUT = Path(__file__).resolve().parents[1]

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


class Peer(StrEnum):
    """What a run is measured against."""

    LOOP = "loop"


@app.callback()
def _verb() -> None:
    """Keeps `bench` a word of its own while there is no second one."""


@app.command("bench", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench_command(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN [--section.key VALUE]...", help="A run's name or YAML, and overrides of it.")
    ],
    peer: Annotated[
        Peer, typer.Option(help="loop: a bare PyTorch loop over the same module and optimizer.")
    ] = Peer.LOOP,
    alternations: Annotated[int, typer.Option(min=1, help="Measured turns of each side.")] = 30,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps in a turn.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Turns of each side before them, left out.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the process [default: all].")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Tokens a second beside a bare PyTorch loop, in turns, in one process.

    Exit code 1 if the losses of both sides differ. The figure at 10 million parameters
    (train/tflops_optimization.md) is made by

    \b
    tools/tflops bench tr0a-4M-stdlib --peer loop --parallel.zero_stage 0 \\
      --model.layers 7 --model.hidden_size 320 --model.attention_heads 5 --model.ffn_size 1280 \\
      --data.sequence_length 256 --training.global_batch_size 8 --training.micro_batch_size 8
    """
    from megatron_patches.benchmark.comparison import Turns, as_text, compare
    from megatron_patches.node import available_cpus
    from tools.runs_catalogue import find_run

    turns = Turns(alternations, warmup, steps)
    path = find_run(run, CHECKOUT)
    print(f"{path.stem}: {warmup} + {alternations} turns of {steps} steps for each side", file=sys.stderr)
    found = compare(path, context.args, turns, threads or available_cpus())
    print(json.dumps(asdict(found) | {"mfu": found.mfu, "agrees": found.agrees}) if json_output else as_text(found))
    if not found.agrees:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_app(app)
