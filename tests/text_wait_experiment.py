"""How long training waits for text that is tokenized beside it: `python -m tests.text_wait_experiment [--steps N]`.

A GPT of 4 layers of 256 trains on the source files of the installed Python packages, straight from one jsonl, on two
cores: one rank, the process that reads, and one that tokenizes. It is a launch as any other, and what its events say of
each step counts, without the first of the launch. A step's share is what it waited of its own time; on a machine with
other work the median of shares is what to look at. Asked for: under 1 %.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from data_tools.benchmark.texts import write_beginning, write_installed_text
from data_tools.text.tokenizer_training import train_bpe
from megatron_patches.checkout import CHECKOUT
from megatron_patches.events.reading import effective, read_events

NAME = "tr901a-4M-wait"
RUN = """
why: how long training waits for text
model: {{layers: 4, hidden_size: 256, attention_heads: 4, ffn_size: 896, vocab_size: 4096}}
data: {{text: {folder}/raw.jsonl, tokenizer: {folder}/tokenizer, sequence_length: 128}}
training: {{steps: {steps}, global_batch_size: 8, micro_batch_size: 8, precision: fp32}}
optimizer: {{name: adamw, learning_rate: 2e-3}}
schedule: {{name: cosine, warmup: 2, final_learning_rate: 2e-4}}
checkpoint: {{every_steps: {steps}}}
"""
MEGABYTE = 1_000_000
CORES = 2
SECONDS = 3600


def train(folder: Path, megabytes: int, steps: int) -> list[tuple[float, float]]:
    """Seconds of each step behind the first, and those of them that it waited.

    Raises:
        subprocess.CalledProcessError: the launch failed; its messages are above.
    """
    raw = folder / "raw.jsonl"
    write_installed_text(raw, megabytes * MEGABYTE)
    write_beginning(folder / "sample.jsonl", raw, 2 * MEGABYTE)
    train_bpe([folder / "sample.jsonl"], folder / "tokenizer", 4096)
    path = folder / "tr901-wait" / f"{NAME}.yaml"
    path.parent.mkdir()
    path.write_text(RUN.format(folder=folder, steps=steps))
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    subprocess.run(
        ["slurm/launch", str(path)], cwd=CHECKOUT, check=True, timeout=SECONDS,
        env={**os.environ, "TRAINYARD_RUNS": str(folder / "runs"), "CUDA_VISIBLE_DEVICES": ""},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    found = [each.facts for each in effective(read_events(folder / "runs" / NAME / "events"), "step")]
    return [(each["seconds"], each["data_wait_seconds"]) for each in found[1:]]


def told(steps: Sequence[tuple[float, float]]) -> str:
    """The figures, as `benchmarks/figures.yaml` has them."""
    shares = [waited / seconds for seconds, waited in steps]
    whole = sum(waited for _, waited in steps) / sum(seconds for seconds, _ in steps)
    return (
        f"# {len(steps)} steps of {median(seconds for seconds, _ in steps):.3f} s (median); of all their time "
        f"{whole:.3%} was waited, of the slowest twentieth of steps {sorted(shares)[-len(shares) // 20]:.3%} or more\n"
        "text-data-wait:\n"
        f"  value: {100 * median(shares):.2g} %\n"
        f"  of: share of a step that a GPT of 4M parameters waits for raw jsonl, median of {len(steps)} steps\n"
        "  command: python -m tests.text_wait_experiment\n"
        f"  machine: {CORES} cores\n"
        f"  date: '{datetime.now(UTC):%Y-%m-%d}'"
    )


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.text_wait_experiment")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--megabytes", type=int, default=200, help="of text")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(told(train(Path(folder), options.megabytes, options.steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
