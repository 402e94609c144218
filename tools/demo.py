"""`tools/demo`: from text to a run that is stopped, resumes and continues a text; every command is shown first."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from data_tools.errors import TrainyardError
from tools.command_line import run_app

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from megatron_patches.config import RunConfig
    from megatron_patches.run_directory import RunDirectory
    from tools.loss_curve import LossCurve

app = typer.Typer(add_completion=False)

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = Path("train/tr0-stdlib-gpt/tr0a-4M-stdlib.slurm")
REQUIRED_GAIN = 1.5  # nats per token below the entropy of single tokens: out of reach without reading the context
PROMPT = "def __init__(self"
STOPPED_TO_BE_CONTINUED = 75
STARTED = time.monotonic()


@app.command()
def main() -> None:
    """Train a small GPT on the Python standard library: stop it in the middle, resume it, and let it write."""
    from megatron_patches.config import load_run
    from megatron_patches.run_directory import run_directory

    signal.signal(signal.SIGTERM, _end_by_term)
    config = load_run(CHECKOUT / SCRIPT.with_suffix(".yaml"))
    directory = run_directory(config)
    make_data(config)
    set_aside(directory.path)
    train_and_stop(config, directory)
    resume()
    validation_loss, entropy = report(config, directory)
    headline("A continuation of a text")
    run_command(["tools/generate", config.name, "--prompt", PROMPT, "--tokens", "100", "--top-k", "40"])
    if validation_loss > entropy - REQUIRED_GAIN:
        print(
            f"the demo failed: the validation loss is {entropy - validation_loss:.2f} nats below the entropy of single "
            f"tokens, {REQUIRED_GAIN} were expected; look at the loss in {directory.path}",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    headline(f"The demo is done. The run and its checkpoints: {shown(directory.path)}")


def make_data(config: "RunConfig") -> None:
    """Corpus, tokenizer and dataset, each unless it is there already."""
    tokenizer, dataset = Path(config.data.tokenizer), Path(config.data.path)
    corpus = dataset.with_name("corpus.jsonl")
    workers = len(os.sched_getaffinity(0))
    make = [
        ("Text: the Python standard library", corpus, ["tools/stdlib-corpus", "--output", str(corpus)]),
        (
            "A tokenizer, trained on it",
            tokenizer,
            ["tools/tokenizer", "train", str(corpus), "--output", str(tokenizer)]
            + ["--vocab-size", str(config.model.vocab_size)],
        ),
        (
            "Tokens on disk: .bin and .idx",
            dataset.with_name(dataset.name + ".manifest.json"),
            ["tools/preprocess", str(corpus), "--output", str(dataset), "--tokenizer", str(tokenizer)]
            + ["--append-eod", "--workers", str(workers), "--overwrite"],
        ),
    ]
    for title, product, command in make:
        headline(title)
        if (CHECKOUT / product).exists():
            print(f"{shown(CHECKOUT / product)} is there already, from an earlier demo", flush=True)
        else:
            run_command(command)


def set_aside(directory: Path) -> None:
    """Rename an earlier demo's run directory: the same command would resume it."""
    if not directory.exists():
        return
    number = 1
    while (aside := directory.with_name(f"{directory.name}.earlier-{number}")).exists():
        number += 1
    headline("An earlier demo's run makes room; delete it when you like")
    show_command(["mv", shown(directory), shown(aside)])
    shutil.move(directory, aside)


def train_and_stop(config: "RunConfig", directory: "RunDirectory") -> None:
    """Launch the run as a user would, and ask it to stop once it is past its middle."""
    middle = config.training.steps // 2
    headline(f"Training on {config.parallel.tensor} processes (the first step comes after some 15 s of imports)")
    show_command(["bash", str(SCRIPT), "&"])
    with subprocess.Popen(["bash", str(SCRIPT)], cwd=CHECKOUT, start_new_session=True) as launch:
        try:
            while launch.poll() is None and newest_step(directory.events) <= middle:
                time.sleep(0.2)
            if launch.poll() is None:
                headline(f"Past the middle: the run is asked to stop, as SLURM does before a time limit")
                show_command(["kill", "-USR1", str(launch.pid)])
                launch.send_signal(signal.SIGUSR1)
            code = launch.wait()
        except BaseException:
            end_launch(launch)
            raise
    print(f"exit code {code}", flush=True)
    if code != STOPPED_TO_BE_CONTINUED:
        raise TrainyardError(
            f"the launch ended with {code} instead of {STOPPED_TO_BE_CONTINUED}, stopped to be continued; its messages "
            "are above"
        )


def resume() -> None:
    """The same command again."""
    headline("The same command again resumes the run by itself")
    show_command(["bash", str(SCRIPT)])
    with subprocess.Popen(["bash", str(SCRIPT)], cwd=CHECKOUT, start_new_session=True) as launch:
        try:
            code = launch.wait()
        except BaseException:
            end_launch(launch)
            raise
    if code:
        raise TrainyardError(f"the resumed launch ended with {code} instead of 0; its messages are above")


def end_launch(launch: "subprocess.Popen[bytes]") -> None:
    """Stop a launch that is not wanted any more: the first TERM lets it save, the second ends it."""
    print("the launch is stopped; it saves itself first", file=sys.stderr, flush=True)
    for seconds in (60, 30):
        if launch.poll() is None:
            launch.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                launch.wait(seconds)
    if launch.poll() is None:
        launch.kill()


def newest_step(events: Path) -> int:
    """Last step that the run has recorded; 0 before the first."""
    from megatron_patches.events import effective, read_events

    return max((event.facts["step"] for event in effective(read_events(events), "step")), default=0)


def report(config: "RunConfig", directory: "RunDirectory") -> tuple[float, float]:
    """Show the loss as text and picture; the last validation loss, and the entropy to compare it with."""
    from tools.loss_curve import draw_picture, read_curve, text_plot

    headline("What it learned")
    curve = read_curve(config.name, directory.events)
    entropy = unigram_entropy(held_out_tokens(config))
    print(text_plot(curve, entropy), end="\n\n")
    picture = directory.path / "loss.png"
    draw_picture(curve, entropy, picture)
    validation_loss = curve.validation[-1][1]
    print(f"validation loss                         {validation_loss:.3f} nats per token")
    print(f"unigram entropy of held-out documents   {entropy:.3f} nats per token")
    print(f"difference                              {entropy - validation_loss:.3f} (at least {REQUIRED_GAIN})")
    print(f"picture                                 {shown(picture)}", flush=True)
    return validation_loss, entropy


def held_out_tokens(config: "RunConfig") -> "NDArray[np.integer]":
    """All tokens of the documents that the run validates on, [tokens]."""
    from data_tools.indexed_dataset import IndexedDataset
    from data_tools.split import split_documents

    dataset = IndexedDataset(CHECKOUT / config.data.path)
    first, last = split_documents(config.data.split, dataset.number_of_documents)[1]
    return dataset.tokens[dataset.document_token_offset(first) : dataset.document_token_offset(last)]


def unigram_entropy(tokens: "NDArray[np.integer]") -> float:
    """Entropy of single tokens, in nats: no model that ignores the context can have a lower loss on them."""
    import numpy as np

    counts = np.bincount(tokens)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def run_command(command: list[str]) -> None:
    """Show a command, run it in the checkout, and end the demo as it ends if it fails."""
    show_command(command)
    code = subprocess.run(command, cwd=CHECKOUT, check=False).returncode
    if code:
        raise TrainyardError(f"{command[0]} ended with {code}; its messages are above")


def show_command(words: list[str]) -> None:
    """A command as it is typed."""
    print("$ " + " ".join(word if word == "&" else shlex.quote(word) for word in words), flush=True)


def headline(text: str) -> None:
    """A step of the demo, with the time since its beginning."""
    print(f"\n[{time.monotonic() - STARTED:3.0f} s] {text}", flush=True)


def shown(path: Path) -> str:
    """A path as seen from the checkout."""
    return os.path.relpath(path, CHECKOUT) if path.is_relative_to(CHECKOUT) else str(path)


def _end_by_term(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    run_app(app)
