"""A run that reads, records and saves as a trainer does, on any layout, without a model: milliseconds a step."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from data_tools.datasets.adoption import adopt_dataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.run_data import RunData
from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.blended import TrainingSamples
from data_tools.samples.delivered import FACT, VERSION, Delivered, as_doubles, from_doubles, hash_text, summed
from data_tools.samples.skipping import SkippedSamples
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.events.writing import EventWriter
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.run.run_directory import run_directory, start_launch
from tests.small_artefacts import make_artefact

YAML = """
why: a run for tests
model: {{layers: 1, hidden_size: 16, attention_heads: 4, ffn_size: 64, vocab_size: 384}}
data: {data}
training: {{steps: 12, global_batch_size: 8, micro_batch_size: 2, precision: fp32, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-2}}
schedule: {{name: cosine, warmup: 2, final_learning_rate: 1e-3}}
checkpoint: {{every_steps: 3}}
"""


ALONE = Layout(tensor=1, pipeline=1, data=1)


def write_dataset(prefix: Path, tokenizer: Path, seed: int, documents: int = 60) -> None:
    """Documents of 0 to 29 tokens below 300."""
    draw = np.random.default_rng(seed)
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        for length in draw.integers(0, 30, documents).tolist():
            writer.add_document(draw.integers(0, 300, length))
    adopt_dataset(prefix, tokenizer)


def two_sources(folder: Path, tokenizer: Path) -> RunConfig:
    """A run on two datasets, which are written first: a, of which three quarters of the samples are, and b."""
    for seed, name in enumerate(("a", "b")):
        write_dataset(folder / name, tokenizer, seed)
    sources = f"[{{name: a, weight: 3, path: {folder}/a}}, {{name: b, weight: 1, path: {folder}/b}}]"
    data = f'{{sources: {sources}, tokenizer: {tokenizer}, split: "1", sequence_length: 16, max_epochs: 9}}'
    path = folder / "tr900-tests" / "tr900a-1K-proof.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(YAML.format(data=data))
    return load_run(path)


@dataclass
class PretendedRun:
    """Launches of one run, one after the other."""

    config: RunConfig
    saved: dict[int, Delivered | None] = field(default_factory=dict)
    """by step: the running hash; None where a version without one saved it"""

    @property
    def run(self) -> RunFolder:
        """Its folder; there is one after the first launch."""
        return run_directory(self.config)

    def train(
        self,
        begin: int,
        steps: int,
        layout: Layout = ALONE,
        micro_batch: int = 2,
        earlier_version: bool = False,
        save: Iterable[int] = (),
        swap: tuple[int, int, int] | None = None,
        **data: object,
    ) -> str:
        """A launch from one step to another; its id.

        Args:
            swap: step, and two samples of its batch that a mistake delivers in each other's place.
            data: other settings of the section.
        """
        config = self.config.model_copy(update={
            "data": self.config.data.model_copy(update=data),
            "training": self.config.training.model_copy(update={"micro_batch_size": micro_batch}),
        })  # fmt: skip
        launch = start_launch(config)
        opened = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
        writer = EventWriter(launch.run.events, launch.id, "trainer")
        version = {} if earlier_version else {"delivered_version": VERSION}
        writer.write("start", run=config.name, step=begin, layout=asdict(layout), **version)
        samples = opened.training(config.training.seed)
        running = Delivered() if begin == 0 else self.saved[begin]
        for step in range(begin + 1, steps + 1):
            before = config.timetable.after(step - 1).samples
            found = _read(config, samples, layout, before, swap if swap and swap[0] == step else None)
            after = config.timetable.after(step)
            facts = {} if earlier_version else {"delivered": hash_text(found)}
            size = after.samples - before
            writer.write(
                "step", step=step, samples=after.samples, tokens=after.tokens, batch_size=size, loss=3.0, **facts
            )
            running = None if running is None or earlier_version else running.after(found, size)
            if step in save:
                self._save(launch.id, step, running, opened)
        writer.write("end", step=steps, outcome="stopped", reason="USR1")
        writer.close()
        return launch.id

    def _save(self, launch: str, step: int, running: Delivered | None, data: RunData) -> None:
        self.saved[step] = running
        samples = self.config.timetable.after(step).samples
        facts: dict[str, JsonValue] = {
            "run": self.config.name, "launch": launch, "step": step, "samples": samples,
            "tokens": 0, "learning_rate": 1e-4, "next_learning_rate": 1e-4,
            **({} if running is None else {FACT: running.as_fact()}),
        }  # fmt: skip
        files = {"weights-00000.safetensors": b"w", "config.yaml": b"", "trainer.json": b"{}"}
        folder = self.run.checkpoints / checkpoint_name(step)
        make_artefact(folder, "checkpoint", files, facts, tuple(data.dataset_ids))


def _read(
    config: RunConfig, samples: TrainingSamples, layout: Layout, before: int, swap: tuple[int, int, int] | None
) -> int:
    """The sum over ranks, as they talk to each other: in doubles."""
    low, high = 0.0, 0.0
    skipped, at = SkippedSamples(config.data.skip_samples), config.timetable.batch_size_at
    swapped = {} if swap is None else dict(zip(swap[1:], reversed(swap[1:]), strict=True))
    for rank in range(layout.data):
        own = 0
        for places in BatchSampler(at, config.training.micro_batch_size, rank, layout.data, skipped).micro_batches(
            before
        ):
            read = np.array([swapped.get(place - before, place - before) + before for place in places.tolist()])
            located = samples.locate(read)
            own += summed(samples.hashes(places, located, samples.read(located)))
        parts = as_doubles(own % (1 << 64))
        low, high = low + parts[0], high + parts[1]
    return from_doubles(low, high)
