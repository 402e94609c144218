"""How fast a run trains and could train: estimated, measured, tuned."""

import json
import shutil
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tools.command_line import run_app

CHECKOUT = Path(__file__).resolve().parents[1]

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, rich_markup_mode=None)

WITH_OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
RunWithOverrides = Annotated[
    str, typer.Argument(metavar="RUN [--section.key VALUE]...", help="A run's name or YAML, and overrides of it.")
]
Nodes = Annotated[int, typer.Option(min=1, help="Nodes of the job.")]
GpusPerNode = Annotated[
    int | None, typer.Option(min=1, help="GPUs of a node [default: what one copy of the model needs, 8 at most].")
]
Gpu = Annotated[
    str | None, typer.Option(help="V100-32GB, A100-80GB, H100, H200, B200, MI250X, MI300X ... [default: not known].")
]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs.")]


class Peer(StrEnum):
    """What a run is measured against."""

    LOOP = "loop"


@app.command("estimate", context_settings=WITH_OVERRIDES)
def estimate_command(
    context: typer.Context,
    run: RunWithOverrides,
    nodes: Nodes = 1,
    gpus_per_node: GpusPerNode = None,
    gpu: Gpu = None,
    tflops: Annotated[
        float | None, typer.Option(min=0.001, help="TFLOP/s for each GPU by BigScience's formula, where measured.")
    ] = None,
    dollars: Annotated[float | None, typer.Option("--dollars-per-gpu-hour", min=0, help="For the cost.")] = None,
    refuse: Annotated[bool, typer.Option("--require-fit", help="Exit code 2 if the run does not fit the GPU.")] = False,
    json_output: AsJson = False,
) -> None:
    """Parameters, FLOPs, memory, messages, time and cost of a run, before it starts and without torch.

    Speeds are those measured on the GPU (train/benchmarks), else its data sheet's at usual shares; which is said.
    """
    from megatron_patches.estimate.text import as_text
    from tools.tflops_estimate import estimate_run

    found = estimate_run(run, context.args, nodes, gpus_per_node, gpu, tflops, dollars, refuse)
    print(json.dumps(found.as_json(), indent=2) if json_output else as_text(found, shutil.get_terminal_size().columns))


@app.command("bench", context_settings=WITH_OVERRIDES)
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
