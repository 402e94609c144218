"""Blends at full size, and beside megatron-core's: `python -m tests.large_blend`.

Opens a blend of 200 sources of 5 billion tokens each (sparse `.bin` files, real headers, indices and manifests) as a
run does, in a process of its own, and reads the first batch: seconds, and memory beyond what imports took. Then reads
random samples of a blend of 16 real datasets, alternating with megatron-core's BlendedDataset over GPTDatasets of the
same files, in one process: samples a second, medians of turns. Both read windows of as many tokens from memory-mapped
files that a first turn brought into memory; who begins changes with each turn. What they make of a window differs: ours
are arrays of tokens, those of megatron-core tensors of tokens, labels, loss mask and positions.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from data_tools.data_config import DataConfig
from data_tools.datasets.adoption import adopt_dataset
from data_tools.datasets.indexed_dataset import IndexedDatasetWriter
from data_tools.datasets.indexed_dataset_format import CODES, HEADER, MAGIC, VERSION, bin_path, idx_path
from data_tools.datasets.manifest import DatasetFacts, TokenizerFacts, manifest_path
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths
from data_tools.text.tokenizer_training import train_bpe
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import FileRecord, build_manifest, write_manifest

SOURCES = 200
TOKENS = 5_000_000_000
"""of each source: 200 of them are a trillion"""
DOCUMENT = 1_000_000
"""tokens of a document"""
LENGTH = 2048
BATCH = 512
"""samples"""


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.large_blend")
    parser.add_argument("--turns", type=int, default=5, help="turns of each reader")
    parser.add_argument("--open", metavar="FOLDER", help="only open the blend of a folder, and print what it took")
    options = parser.parse_args(arguments)
    if options.open:
        print(json.dumps(measure_opening(Path(options.open))))
        return 0
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:  # no page of it was read before
            make_large_blend(Path(folder))
            found = open_in_a_process(Path(folder))
        print(
            f"{SOURCES} sources of {TOKENS:,} tokens: opened in {found['open']:.3f} s, first batch of {BATCH} "
            f"samples read after {found['seconds']:.3f} s, {found['bytes'] / 1e6:.0f} MB beyond the imports"
        )
    with tempfile.TemporaryDirectory() as folder:
        beside_megatron_core(Path(folder), options.turns)
    return 0


def make_large_blend(folder: Path, sources: int = SOURCES, tokens: int = TOKENS) -> None:
    """Datasets `source-000` and so on; their `.bin` files are holes."""
    tokenizer = load_tokenizer(make_tokenizer(folder))
    facts = TokenizerFacts(
        id=tokenizer.id, name=tokenizer.name, vocab_size=tokenizer.vocab_size, end_of_document=tokenizer.end_of_document
    )
    documents = tokens // DOCUMENT
    sizes = np.full(documents, DOCUMENT, dtype="<i4")
    index = b"".join(
        [
            HEADER.pack(MAGIC, VERSION, CODES[np.dtype("<u2")], documents, documents + 1),
            sizes.tobytes(),
            (np.arange(documents, dtype="<i8") * DOCUMENT * 2).tobytes(),
            np.arange(documents + 1, dtype="<i8").tobytes(),
        ]
    )
    for number in range(sources):
        prefix = folder / f"source-{number:03d}"
        idx_path(prefix).write_bytes(index)
        with bin_path(prefix).open("wb") as file:
            file.truncate(documents * DOCUMENT * 2)
        files = [
            FileRecord(path=path.name, size=path.stat().st_size, sha256="0" * 64)
            for path in (bin_path(prefix), idx_path(prefix))
        ]
        of_dataset = DatasetFacts(
            documents=documents, sequences=documents, tokens=documents * DOCUMENT, dtype="uint16", largest_token_id=0,
            empty_documents=0, tokenizer=facts,
        )  # fmt: skip
        manifest = build_manifest("dataset", files, of_dataset.model_dump(), [tokenizer.id], f"source {number}")
        write_manifest(manifest_path(prefix), manifest)


def make_tokenizer(folder: Path) -> Path:
    """A small tokenizer in a folder."""
    (folder / "text.jsonl").write_text(json.dumps({"text": "some words to learn from " * 20}) + "\n")
    train_bpe([folder / "text.jsonl"], folder / "tokenizer", 270)
    return folder / "tokenizer"


def section(folder: Path, sources: int, length: int) -> DataConfig:
    """A run's data: sources of weights 1, 2, 3 ..."""
    return DataConfig.model_validate(
        {
            "sources": [
                {"name": f"s{number}", "weight": number + 1, "path": str(folder / f"source-{number:03d}")}
                for number in range(sources)
            ],
            "tokenizer": str(folder / "tokenizer"),
            "sequence_length": length,
            "split": "100",
        }
    )


def lengths(length: int) -> SampleLengths:
    """Those of samples that predict the next token."""
    return SampleLengths(length + 1, length, (("tokens", length),), length)


def measure_opening(folder: Path, sources: int = SOURCES) -> dict[str, float]:
    """What it takes this process to open a blend and to read its first batch."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    data = RunData(section(folder, sources, LENGTH), folder, lengths(LENGTH), prepare=None)  # as a rank does
    samples = data.training(seed=1)
    opened = time.perf_counter() - started
    read = samples.read(samples.locate(np.arange(BATCH)))
    seconds = time.perf_counter() - started
    assert len(read) == BATCH and read[0]["tokens"].shape == (LENGTH + 1,)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"open": opened, "seconds": seconds, "bytes": (after - before) * 1024}


def open_in_a_process(folder: Path) -> dict[str, float]:
    """`measure_opening` in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.large_blend", "--open", str(folder)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def beside_megatron_core(
    folder: Path, turns: int, sources: int = 16, tokens: int = 8_000_000, reads: int = 8192
) -> None:
    """Samples a second of both, in turns."""
    draw = make_datasets(folder, sources, tokens)
    ours = _ours(folder, sources)
    theirs, count = _theirs(folder, sources)
    rates: dict[str, list[float]] = {"ours, batches of 512": [], "ours, one by one": [], "megatron-core": []}
    readers: dict[str, Callable[[np.ndarray[Any, Any]], None]] = dict(zip(rates, [*ours, theirs], strict=True))
    for turn in range(turns + 1):
        names = list(readers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            # each reads others, so that none finds in the processor's cache what the one before it has read
            read, places = readers[name], draw.integers(0, count, reads)
            started = time.perf_counter()
            read(places)
            if turn:  # the first turn brings files into memory
                rates[name].append(reads / (time.perf_counter() - started))
    print(f"{sources} sources of {tokens:,} tokens, {reads:,} random samples of {LENGTH} a turn, {turns} turns:")
    for name, found in rates.items():
        print(f"  {name:<22} {median(found):10,.0f} samples/s (median; {min(found):,.0f} to {max(found):,.0f})")


def make_datasets(folder: Path, sources: int, tokens: int) -> np.random.Generator:
    """Datasets `source-000` and so on of random tokens; returns what they were drawn with."""
    tokenizer = make_tokenizer(folder)
    draw = np.random.default_rng(0)
    for number in range(sources):
        prefix = folder / f"source-{number:03d}"
        with IndexedDatasetWriter(prefix, np.uint16) as writer:
            while writer.tokens < tokens:
                counts = draw.integers(100, 3000, 1000).tolist()
                writer.add_documents(draw.integers(0, 260, sum(counts)), counts)
        adopt_dataset(prefix, tokenizer)
    return draw


def _ours(folder: Path, sources: int) -> list[Callable[[np.ndarray[Any, Any]], None]]:
    samples = RunData(section(folder, sources, LENGTH), folder, lengths(LENGTH)).training(seed=1)

    def in_batches(places: np.ndarray[Any, Any]) -> None:
        for first in range(0, len(places), BATCH):
            samples.read(samples.locate(places[first : first + BATCH]))

    def one_by_one(places: np.ndarray[Any, Any]) -> None:
        for place in places.tolist():
            samples[place]

    return [in_batches, one_by_one]


def _theirs(folder: Path, sources: int) -> tuple[Callable[[np.ndarray[Any, Any]], None], int]:
    import torch
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    class Tokenizer:
        unique_identifiers = {"class": "none"}  # noqa: RUF012
        eod = pad = 0
        vocab_size = 270

    prefixes = [str(folder / f"source-{number:03d}") for number in range(sources)]
    config = GPTDatasetConfig(
        random_seed=1, sequence_length=LENGTH, blend=(prefixes, [number + 1.0 for number in range(sources)]), split="1",
        path_to_cache=str(folder / "cache"), tokenizer=Tokenizer(), reset_position_ids=False,
        reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False, mid_level_dataset_surplus=0.1,
    )  # fmt: skip
    count = 40_000
    built = BlendedMegatronDatasetBuilder(GPTDataset, [count, 0, 0], lambda: True, config).build()[0]

    def read(places: np.ndarray[Any, Any]) -> None:
        for place in places.tolist():
            built[place]

    return read, count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
