"""`tools/generate`: let a run continue texts, or chat with it."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable
from tools.commands.generate.prompts import as_line, read_prompts
from tools.option_groups import takes_groups
from tools.run_files.checkpoint_reference import find_checkpoints
from tools.terminal import remark

if TYPE_CHECKING:  # torch
    from megatron_patches.generation.continuation import Wanted
    from megatron_patches.generation.loaded_model import LoadedModel

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Choice:
    """How each token is chosen, and where a text ends."""

    tokens: Annotated[int, typer.Option(min=1, help="Tokens to add at most; a document's end ends it.")] = 100
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.8
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Choose among so many of the likeliest tokens. Example: 40")
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Choose among the fewest tokens that have this share of the probability together. Example: 0.9",
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End a text before this string; it may be given more than once. Example: --stop '###'"),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0

    def wanted(self) -> "Wanted":
        """The same for the model.

        Raises:
            TrainyardError: a number makes no sense, or a stop string is empty.
        """
        from megatron_patches.generation.continuation import Wanted
        from megatron_patches.generation.sampling import Sampling

        sampling = Sampling(self.temperature, self.top_k, self.top_p)
        return Wanted(self.tokens, sampling, self.seed, tuple(self.stop or ()))


@app.command()
@takes_groups
def main(
    choice: Choice,
    checkpoint: str = typer.Argument(
        help="A run (its newest whole checkpoint), RUN@STEP, RUN@STEP/weights, or a folder."
    ),
    prompt: str | None = typer.Option(None, help="Text to continue; empty begins a document, as without it."),
    prompts: Path | None = typer.Option(
        None,
        help="Continue each prompt of a file: .txt (one a line), or .jsonl (at the key prompt or text). Prompt n, "
        "from 0, is drawn with --seed plus n. Example: --prompts questions.jsonl --output answers.jsonl",
    ),
    output: Path | None = typer.Option(
        None, help="Write the texts of --prompts to this new file, a JSON object a line; without it they are printed."
    ),
    batch_size: int | None = typer.Option(
        None, min=1, help="Prompts of --prompts that are continued at once; it changes no text; 8 without it."
    ),
    tensor_parallel: int = typer.Option(
        1,
        min=1,
        help="Processes of this machine that share each matrix of the model, each with a GPU where there are any. "
        "Example: 2",
    ),
    pipeline_parallel: int = typer.Option(
        1,
        min=1,
        help="Stages that the layers are divided into; each has as many processes as --tensor-parallel says. For a "
        "model that fits no single device. Example: 2",
    ),
    chat: bool = typer.Option(
        False,
        "--chat",
        help="Chat, by the tokenizer's chat template, else by the plain one of tools/preprocess. Ctrl-C ends a reply, "
        "Ctrl-D the chat. Where the window is full, the oldest exchanges are forgotten.",
    ),
) -> None:
    """Continue texts with the weights of a run's checkpoint, whatever layout saved it.

    The model sees as many tokens as a sample of its training had; where a text outgrows them, it forgets the oldest
    quarter of them, again and again.
    """
    _refuse_together(prompt, prompts, output, batch_size, chat)
    given = None if prompts is None else read_prompts(prompts)
    if output is not None:
        _refuse_output(output)
    folders = find_checkpoints(checkpoint)
    with ExitStack() as stack:
        wanted, model = _load(folders, choice, tensor_parallel, pipeline_parallel, stack)
        if chat:
            from tools.commands.generate.chat import Chat

            Chat(model, wanted).run()
        elif given is not None:
            _continue_file(model, given, wanted, output, batch_size or 8)
        else:
            _continue_one(model, prompt or "", wanted)


def _refuse_together(
    prompt: str | None, prompts: Path | None, output: Path | None, batch_size: int | None, chat: bool
) -> None:
    given = {"--prompt": prompt, "--prompts": prompts, "--chat": chat or None}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise Refused(f"{' and '.join(named)} exclude each other; give one")
    for option, value in {"--output": output, "--batch-size": batch_size}.items():
        if value is not None and prompts is None:
            raise Refused(f"{option} is for --prompts; leave it out, or name a file of prompts")


def _refuse_output(output: Path) -> None:
    """Said before a model writes what could not be kept."""
    if output.exists():
        raise Refused(f"{printable(output)} exists; name another file, or move it away")
    if not output.parent.is_dir():
        raise Refused(f"{printable(output.parent)} is no folder; make it, or name a file elsewhere")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise Refused(f"{printable(output.parent)}: you may not write there; name a file elsewhere")


def _load(
    folders: Sequence[Path], choice: Choice, tensor: int, pipeline: int, stack: ExitStack
) -> tuple["Wanted", "LoadedModel"]:
    from megatron_patches.launch.rank_settings import quieten_libraries

    quieten_libraries()  # before what they are imported by
    from megatron_patches.generation.loaded_model import load_model
    from megatron_patches.generation.local_ranks import LocalRanks

    wanted = choice.wanted()
    ranks = stack.enter_context(LocalRanks(tensor, pipeline))
    model = load_model(folders, lambda problem: remark(f"passed over: {problem}"), ranks.start_groups, tensor, pipeline)
    if model.checkpoint != folders[0]:
        remark(f"reading {model.checkpoint.name}")
    return wanted, model


def _continue_one(model: "LoadedModel", prompt: str, wanted: "Wanted") -> None:
    from megatron_patches.generation.continuation import continue_texts

    ((_, written),) = continue_texts(model, [prompt], wanted)
    text = written.prompt + written.text
    print(printable(text, layout=True) if sys.stdout.isatty() else text)  # a model may have learned to steer terminals


def _continue_file(
    model: "LoadedModel", prompts: list[str], wanted: "Wanted", output: Path | None, batch_size: int
) -> None:
    """Lines in the order of the prompts; on a terminal each as soon as those before it are there."""
    from megatron_patches.generation.continuation import continue_texts

    lines: dict[int, str] = {}
    told = 0
    for number, written in continue_texts(model, prompts, wanted, batch_size):
        lines[number] = as_line(prompts[number], written, ascii_alone=output is None)
        while output is None and told in lines:
            print(lines[told], flush=True)
            told += 1
    if output is not None:
        content = "".join(f"{lines[number]}\n" for number in range(len(prompts)))
        try:
            write_atomically(output, content.encode())
        except OSError:  # the disk is full, and the model may have written for hours
            remark(f"{output} cannot be written; what it would hold is on standard output")
            print(content, end="", flush=True)
            raise
