"""How fast an encoder trains: beside padding, and beside transformers' EuroBERT in a plain loop.

    python -m tests.encoder_experiment [--record benchmarks/DATE-HARDWARE.jsonl]

The paragraphs of the standard library are the documents: as short as many that encoders are trained on. On them train
demo-size encoders of 4 blocks of width 256, in turns with each peer as `tools/tflops bench` takes them, on two cores.
Asked for: packed beside padded, in tokens of text a second, 0.95 of the ratio of both sides' shares of text or more;
beside transformers at least equal; with all logits, which runs make for comparison alone, nothing. Exit code 1 where
one is not met. It takes two minutes on two idle cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.benchmark.comparison import Benchmark, measure_run
from megatron_patches.benchmark.turns import Turns
from megatron_patches.checkout import CHECKOUT
from megatron_patches.launch.rank_settings import available_cpus
from megatron_patches.report.record import append, measured
from megatron_patches.report.text import as_text
from tools.commands.stdlib_corpus import stdlib_documents

RUN = CHECKOUT / "train/tr22-neobert/tr22d-1M-demo.yaml"
TABLE = "encoders"
VOCABULARY = 4096
LEAST_OF_SHARES = 0.95
MODEL = {
    "model.layers": 4,
    "model.hidden_size": 256,
    "model.attention_heads": 4,
    "model.ffn_size": 1024,
    "data.sequence_length": 256,
    "training.global_batch_size": 8,
    "training.micro_batch_size": 8,
}
# transformers' EuroBERT has no documents within a sample: all its tokens see each other
WHOLE = {"objective.reset_attention": "false", "data.samples": "stream"}


@dataclass(frozen=True)
class Asked:
    """One comparison."""

    row: str
    peer: str
    changes: dict[str, str]
    least: float | None
    """of the ratio, over that of the shares of places with text; None where nothing is asked for"""


COMPARISONS = (
    Asked("packed, beside padded", "padded", {}, LEAST_OF_SHARES),
    Asked("beside transformers", "transformers", WHOLE, 1.0),
    Asked("all logits, beside transformers", "transformers", {**WHOLE, "objective.masked_logits_only": "false"}, None),
)


def make_data(folder: Path) -> dict[str, str]:
    """Paragraphs, a tokenizer that is trained on them, and the dataset; the keys of a run that name them."""
    text, tokenizer, dataset = folder / "paragraphs.jsonl", folder / "tokenizer", folder / "text"
    with text.open("w", encoding="utf-8") as file:
        for _, document in stdlib_documents():
            for paragraph in filter(str.strip, document.split("\n\n")):
                file.write(json.dumps({"text": paragraph}) + "\n")
    _run("tokenizer", "train", text, "--kind", "wordpiece", "--output", tokenizer, "--vocab-size", VOCABULARY)
    _run("preprocess", text, "--output", dataset, "--tokenizer", tokenizer)
    return {"data.path": str(dataset), "data.tokenizer": str(tokenizer)}


def _run(verb: str, *words: object) -> None:
    subprocess.run(
        [CHECKOUT / "tools" / verb, *map(str, words)],
        check=True,
        env=os.environ | {"TRAINYARD_PYTHON": sys.executable},
        stdout=sys.stderr,
    )


def compare(asked: Asked, data: dict[str, str], turns: Turns) -> Benchmark:
    """One comparison, on all cores."""
    keys = {**MODEL, **data, **asked.changes}
    return measure_run(RUN, [f"--{key}={value}" for key, value in keys.items()], turns, available_cpus(), asked.peer)


def is_met(asked: Asked, found: Benchmark) -> bool:
    """Whether our side is as fast as was asked for, and both trained the same."""
    assert found.peer is not None
    fast = asked.least is None or found.peer.ratio.median >= asked.least * found.peer.share_ratio
    return found.agrees and fast


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.encoder_experiment")
    parser.add_argument("--alternations", type=int, default=30, help="measured turns of each side")
    parser.add_argument("--warmup", type=int, default=3, help="turns of each side before them")
    parser.add_argument("--record", type=Path, help="append the results to this record")
    options = parser.parse_args(arguments)
    turns, met = Turns(options.alternations, options.warmup, steps=1), True
    with tempfile.TemporaryDirectory(prefix="trainyard-encoder-") as folder:
        data = make_data(Path(folder))
        for asked in COMPARISONS:
            found = compare(asked, data, turns)
            fulfilled = is_met(asked, found)
            met = met and fulfilled
            print(f"## {asked.row}: {'met' if fulfilled else 'NOT MET'}\n{as_text(found)}\n", flush=True)
            if options.record is not None:
                command = ["python", "-m", "tests.encoder_experiment", *arguments]
                append(options.record, measured(TABLE, asked.row, command, found))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
