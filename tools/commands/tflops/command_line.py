"""How fast a run trains and could train: estimated, measured, tuned."""

import json
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from megatron_patches.checkout import CHECKOUT

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


class PeerChoice(StrEnum):
    """What a run is measured against."""

    LOOP = "loop"
    NANOGPT = "nanogpt"
    TRANSFORMERS = "transformers"
    PADDED = "padded"
    NONE = "none"


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

    Speeds are those measured on the GPU (benchmarks), else its data sheet's at usual shares; which is said.
    """
    from megatron_patches.estimate.text import as_text
    from tools.commands.tflops.estimate import estimate_run

    found = estimate_run(run, context.args, nodes, gpus_per_node, gpu, tflops, dollars, refuse)
    print(json.dumps(found.as_json(), indent=2) if json_output else as_text(found, shutil.get_terminal_size().columns))


@app.command("bench", context_settings=WITH_OVERRIDES)
def bench_command(
    arguments: Annotated[
        list[str], typer.Argument(metavar="RUN... [--section.key VALUE]...", help="Runs, and overrides of all of them.")
    ],
    peer: Annotated[
        PeerChoice,
        typer.Option(
            help="loop: a bare PyTorch loop over the same module and optimizer, on the same layout; nanogpt: another "
            "GPT-2, compiled whole; transformers: its EuroBERT, for encoders; padded: the same documents without "
            "packing; none: the run alone."
        ),
    ] = PeerChoice.LOOP,
    vary: Annotated[
        list[str] | None, typer.Option(help="Overrides of one configuration; once for each configuration.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: what one copy of the model needs].")
    ] = None,
    alternations: Annotated[int, typer.Option(min=1, help="Measured turns of each side.")] = 30,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps in a turn.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Turns of each side before them, left out.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a machine [default: all].")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write a trace of 3 further steps here, and say where their time goes.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Append the results to this record (JSON lines).")] = None,
    table: Annotated[str, typer.Option(help="Table of the guide that they belong to.")] = "bench",
    row: Annotated[str, typer.Option(help="The row's name there [default: the run and its overrides].")] = "",
    json_output: AsJson = False,
) -> None:
    """Tokens a second of real steps, one configuration after the other, each in processes of its own.

    Beside a peer both take turns in the same processes. Exit code 1 if the losses of both sides differ.

    \b
    tools/tflops bench tr0a-4M-stdlib --parallel.tensor 1 \\
      --vary "--parallel.zero_stage 0" --vary "--parallel.zero_stage 1"
    """
    from tools.commands.tflops.bench import BenchRequest, measure_all

    asked = BenchRequest(
        arguments=arguments, peer=None if peer is PeerChoice.NONE else peer.value, variants=vary or [""],
        processes=processes,
        alternations=alternations, steps=steps, warmup=warmup, threads=threads, trace=profile, record=record,
        table=table, row=row,
    )  # fmt: skip
    if not measure_all(asked, json_output):
        raise typer.Exit(1)


@app.command("tune", context_settings=WITH_OVERRIDES)
def tune_command(
    context: typer.Context,
    run: RunWithOverrides,
    gpu: Annotated[str, typer.Option(help="A GPU as `estimate` knows it, or cpu for this machine.")],
    nodes: Nodes = 1,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node; on a CPU processes.")] = 8,
    show: Annotated[int, typer.Option(min=1, help="Layouts to show.")] = 10,
    measure: Annotated[int, typer.Option(min=0, help="Measure so many of the best here, and choose by that.")] = 0,
    spread: Annotated[
        int, typer.Option(min=0, help="First measure so many layouts from all over the ranking, and learn from them.")
    ] = 0,
    record: Annotated[
        Path | None, typer.Option(help="Learn from this record too, and append what is measured.")
    ] = None,
    slurm: Annotated[Path | None, typer.Option(help="Write a job array that measures those shown.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit that array, as tools/submit does.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the chosen layout into the run's YAML.")] = False,
) -> None:
    """The fastest layout: tensor, pipeline, sequence parallel, ZeRO, micro-batch, recomputation.

    What does not fit is left out; step times are predicted with the speeds that records of the same hardware teach.
    """
    from tools.commands.tflops.tune import TuneRequest, tune

    asked = TuneRequest(
        run, context.args, nodes, gpus_per_node, gpu, show, measure, spread, record, slurm, submit, write
    )
    for paragraph in tune(asked):
        print(paragraph, end="\n\n")


@app.command("render")
def render_command(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 if one is old.")] = False,
) -> None:
    """Make the tables of train/tflops_optimization.md anew from benchmarks/*.jsonl."""
    from megatron_patches.report.record import read_rows, record_files
    from megatron_patches.report.tables import render_page

    page = CHECKOUT / "train" / "tflops_optimization.md"
    if not render_page(page, read_rows(record_files(CHECKOUT)), check) and check:
        print("train/tflops_optimization.md is not what the record says: tools/tflops render", file=sys.stderr)
        raise typer.Exit(1)


@app.command("draw")
def draw_command(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs") / "benchmarks",
    record: Annotated[Path | None, typer.Option(help="Of this record alone [default: benchmarks].")] = None,
) -> None:
    """A roofline and a picture of where the time goes, for each model in the record."""
    from tools.commands.tflops.draw import draw_all

    for path in draw_all(output, record):
        print(path)
