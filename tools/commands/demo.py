"""`tools/demo`: from text to a run that is stopped, resumes and continues a text; every command is shown first."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from megatron_patches.checkout import CHECKOUT
from megatron_patches.ending import end_by_term
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted
from tools.command_line import run_app

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from megatron_patches.artefacts.run_folder import RunFolder
    from megatron_patches.run.config import RunConfig

app = typer.Typer(add_completion=False)

SCRIPT = Path("train/tr0-stdlib-gpt/tr0a-4M-stdlib.slurm")
REQUIRED_GAIN = 1.5  # nats per token below the entropy of single tokens: out of reach without reading the context
PROMPT = "def __init__(self"
STOPPED_TO_BE_CONTINUED = 75


@app.command()
def main() -> None:
    """Train a small GPT on the Python standard library: stop it in the middle, resume it, and let it write."""
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.run_directory import run_directory

    end_by_term()
    print("A small GPT learns Python from the standard library: about three minutes on two cores.", flush=True)
    # One GPU would be too few for two processes; where there are two, CUDA_VISIBLE_DEVICES=0,1 make demo uses them.
    if "CUDA_VISIBLE_DEVICES" not in os.environ and Path("/dev/nvidia0").exists():
        show_command(["export", "CUDA_VISIBLE_DEVICES="])
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    config = load_run(CHECKOUT / SCRIPT.with_suffix(".yaml"))
    raise typer.Exit(0 if Demo(config, run_directory(config)).run() else 1)


class Demo:
    """The demo's steps, in the order in which they are shown."""

    def __init__(self, config: "RunConfig", directory: "RunFolder") -> None:
        self.config = config
        self.directory = directory
        self._started = time.monotonic()

    def run(self) -> bool:
        """All of it; whether the run has learned what it should."""
        self.make_data()
        self.set_aside()
        self.train_and_stop()
        self.resume()
        gain = self.report()
        self.headline("A continuation of a text")
        run_command(["tools/generate", self.config.name, "--prompt", PROMPT, "--tokens", "100", "--top-k", "40"])
        if gain < REQUIRED_GAIN:
            self.headline(f"The demo failed: the loss is only {gain:.2f} nats below, not {REQUIRED_GAIN}")
            return False
        self.headline(f"The demo is done. The run and its checkpoints: {shown(self.directory.path)}")
        return True

    def make_data(self) -> None:
        """Corpus, tokenizer and dataset, each unless it is there already."""
        tokenizer, dataset = self.config.data.tokenizer, _dataset_of(self.config)
        corpus = str(dataset.with_name("corpus.jsonl"))
        vocabulary, workers = str(self.config.model.vocabulary), str(len(os.sched_getaffinity(0)))
        self.make("Text: the Python standard library", corpus, ["tools/stdlib-corpus", "--output", corpus])
        train = ["tools/tokenizer", "train", corpus, "--output", tokenizer, "--vocab-size", vocabulary]
        self.make("A tokenizer, trained on it (some seconds)", tokenizer, train)
        encode = ["tools/preprocess", corpus, "--output", str(dataset), "--tokenizer", tokenizer]
        options = ["--append-eod", "--workers", workers, "--overwrite"]
        self.make("Tokens on disk: .bin and .idx", f"{dataset}.manifest.json", [*encode, *options])

    def make(self, title: str, product: str, command: list[str]) -> None:
        """Run one command, unless its product is there."""
        self.headline(title)
        if (CHECKOUT / product).exists():
            print(f"{shown(CHECKOUT / product)} is there already, from an earlier demo", flush=True)
        else:
            run_command(command)

    def set_aside(self) -> None:
        """Rename an earlier demo's run directory: the same command would resume it."""
        directory = self.directory.path
        if not directory.exists():
            return
        number = 1
        while (aside := directory.with_name(f"{directory.name}.earlier-{number}")).exists():
            number += 1
        self.headline("An earlier run makes room; delete it when you like")
        show_command(["mv", shown(directory), shown(aside)])
        directory.rename(aside)

    def train_and_stop(self) -> None:
        """Launch the run as a user would, and ask it to stop once it is past its middle."""
        middle = self.config.timetable.steps // 2
        processes = self.config.parallel.tensor
        self.headline(
            f"Training on {counted(processes, 'process', 'processes')}, each with half of every matrix (imports take "
            "some 15 s)"
        )
        show_command(["bash", str(SCRIPT), "&"])
        with launched() as launch:
            while launch.poll() is None and newest_step(self.directory.events) <= middle:
                time.sleep(0.2)
            if launch.poll() is None:
                self.headline("Past the middle: the run is asked to stop, as SLURM does before a time limit")
                show_command(["kill", "-USR1", str(launch.pid)])
                launch.send_signal(signal.SIGUSR1)
            check_code(launch.wait(), STOPPED_TO_BE_CONTINUED)

    def resume(self) -> None:
        """The same command again."""
        self.headline("The same command again resumes the run by itself")
        show_command(["bash", str(SCRIPT)])
        with launched() as launch:
            check_code(launch.wait(), 0)

    def report(self) -> float:
        """Show the loss as text, as numbers and as a picture; how many nats it lies below the unigram entropy."""
        from tools.loss_curve import draw_picture, read_curve, text_plot

        self.headline("What it learned")
        curve = read_curve(self.config.name, self.directory.events)
        loss, entropy = curve.validation[-1][1], unigram_entropy(held_out_tokens(self.config))
        picture = self.directory.path / "loss.png"
        draw_picture(curve, entropy, picture)
        print(text_plot(curve, entropy), end="\n\n")
        print(f"validation loss                         {loss:.3f} nats per token")
        print(f"unigram entropy of held-out documents   {entropy:.3f} nats per token")
        print(f"difference                              {entropy - loss:.3f} nats (at least {REQUIRED_GAIN} expected)")
        print(f"picture                                 {shown(picture)}", flush=True)
        return entropy - loss

    def headline(self, text: str) -> None:
        """A step of the demo, with the time since its beginning."""
        print(f"\n[{time.monotonic() - self._started:3.0f} s] {text}", flush=True)


@contextmanager
def launched() -> "Iterator[subprocess.Popen[bytes]]":
    """The run's launch in the background; one that is not waited for to its end is stopped, and saves itself first."""
    # its own session: Ctrl-C then reaches the demo alone, which tells the launch once (twice would kill it)
    with subprocess.Popen(["bash", str(SCRIPT)], cwd=CHECKOUT, start_new_session=True) as launch:
        try:
            yield launch
        finally:
            for seconds in (60, 30):
                if launch.poll() is None:
                    print("stopping the launch; it saves itself first", file=sys.stderr, flush=True)
                    launch.send_signal(signal.SIGTERM)
                    with suppress(subprocess.TimeoutExpired):
                        launch.wait(seconds)
            if launch.poll() is None:
                launch.kill()


def check_code(code: int, expected: int) -> None:
    """Show a launch's exit code; raises TrainyardError at another one than expected."""
    print(f"exit code {code}", flush=True)
    if code != expected:
        raise TrainyardError(f"the launch ended with {code}, {expected} was expected; its messages above say why")


def newest_step(events: Path) -> int:
    """Last step that the run has recorded; 0 before the first."""
    from megatron_patches.events.reading import effective, read_events

    return max((event.facts["step"] for event in effective(read_events(events), "step")), default=0)


def _dataset_of(config: "RunConfig") -> Path:
    """What the demo trains on: its prefix, relative to the checkout."""
    path = config.data.first_sources[0].path
    assert path is not None, "the demo's run names a dataset"
    return Path(path)


def held_out_tokens(config: "RunConfig") -> "NDArray[np.integer]":
    """All tokens of the documents that the run validates on, [tokens]."""
    from data_tools.datasets.indexed_dataset import IndexedDataset
    from data_tools.datasets.split import split_documents

    dataset = IndexedDataset(CHECKOUT / _dataset_of(config))
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


def show_command(command: list[str]) -> None:
    """A command as it is typed."""
    print("$ " + " ".join(word if word == "&" else shlex.quote(word) for word in command), flush=True)


def shown(path: Path) -> str:
    """A path as seen from the checkout."""
    return os.path.relpath(path, CHECKOUT) if path.is_relative_to(CHECKOUT) else str(path)


if __name__ == "__main__":
    run_app(app, "demo")
