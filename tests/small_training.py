"""A dataset of made-up words and a run of a few seconds on it, for tests of the whole path."""

import json
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.records.record import RecordForm
from data_tools.text.tokenizer_training import train_bpe
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run

RUN_YAML = """
why: a run for tests
model: {{layers: 4, hidden_size: 32, attention_heads: 4, ffn_size: 64, vocab_size: 384}}
data: {{path: {folder}/text, tokenizer: {folder}/tokenizer, split: "8,2", sequence_length: 16}}
training: {{steps: 8, global_batch_size: 8, micro_batch_size: 2, precision: fp32, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-2, weight_decay: 0.1, gradient_clip: 0.05}}
schedule: {{name: cosine, warmup: 2, final_learning_rate: 1e-3}}
checkpoint: {{every_steps: 3}}
evaluation: {{every_steps: 4, samples: 10}}
"""
ENCODER = [
    "--model={name: encoder, layers: 4, hidden_size: 32, attention_heads: 4, ffn_size: 96, vocab_size: 384}",
    "--objective={name: masked_lm, probability: 0.3}",
    "--data.path=$DATA/encoder/text",
    "--data.tokenizer=$DATA/encoder/tokenizer",
]
"""overrides that make the small run an encoder's"""


@dataclass(frozen=True)
class SmallData:
    """A folder with the datasets `text` and `more`, and `tokenizer/`; in `encoder/` another `text` and `tokenizer/`."""

    folder: Path

    def run(self, folder: Path, overrides: Sequence[str] = (), name: str = "tr900a-28K-small") -> RunConfig:
        """A run on this data, its YAML written to a folder; in overrides `$DATA` is the data's folder."""
        given = [word.replace("$DATA", str(self.folder)) for word in overrides]
        return load_run(self.write(folder / "tr900-tests", name), given)

    def write(self, family: Path, name: str) -> Path:
        """The YAML of a run on this data, in a family's folder."""
        path = family / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RUN_YAML.format(folder=self.folder))
        return path


def make_small_data(folder: Path) -> SmallData:
    """200 documents of 40 words, a BPE of 384 tokens, about 16,000 tokens, and the longer half of them once more, in
    another order; `pairs` of questions and answers; a second of work."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(150)]
    documents = folder / "documents"
    documents.mkdir(parents=True)
    for number in range(200):
        (documents / f"{number:03d}.txt").write_text(" ".join(draw.choices(words, k=40)))
    files = sorted(documents.iterdir())
    train_bpe(files, folder / "tokenizer", vocab_size=384)
    longer = sorted(files, key=lambda file: (-file.stat().st_size, file))[:100]
    for name, inputs in (("text", files), ("more", longer)):
        preprocess(
            PreprocessRequest(inputs=inputs, output=folder / name, tokenizer=folder / "tokenizer", append_eod=True)
        )
    _make_pairs(folder, words, draw)
    _make_for_encoders(folder, files)
    return SmallData(folder)


def _make_for_encoders(folder: Path, files: Sequence[Path]) -> None:
    """`encoder/text` and `encoder/tokenizer`: the documents by a tokenizer of 384 tokens that names its mask token."""
    trained, own = folder / "encoder" / "trained", folder / "encoder" / "tokenizer"
    train_bpe(files, trained, 384, ("<|endoftext|>", "<|mask|>", "<|cls|>", "<|sep|>", "<|pad|>"))
    own.mkdir()
    shutil.copy(trained / "tokenizer.json", own)
    roles = {f"{role}_token": f"<|{role}|>" for role in ("mask", "cls", "sep", "pad")}
    (own / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", **roles}))
    preprocess(PreprocessRequest(inputs=files, output=folder / "encoder" / "text", tokenizer=own, append_eod=True))


def _make_pairs(folder: Path, words: Sequence[str], draw: random.Random) -> None:
    """`pairs`: 100 questions, every other one in capitals and with commas, and answers of 10 to 30 words."""
    records = []
    for number in range(100):
        question, answer = (draw.choices(words, k=draw.randint(10, 30)) for _ in range(2))
        asked = ", ".join(question).upper() if number % 2 else " ".join(question)
        records.append(json.dumps({"question": asked, "answer": " ".join(answer)}))
    (folder / "pairs.jsonl").write_text("\n".join(records))
    preprocess(
        PreprocessRequest(
            inputs=[folder / "pairs.jsonl"], output=folder / "pairs", tokenizer=folder / "tokenizer",
            records=RecordForm("pairs", ("question", "answer"), None, " "),
        )
    )  # fmt: skip


def overrides(**settings: object) -> list[str]:
    """`overrides(training__steps=8)` as the words of a command line."""
    return [f"--{key.replace('__', '.')}={value}" for key, value in settings.items()]


def train_launch(launch_directory: str, environment: dict[str, str] | None = None) -> None:
    """One rank of a launch, for `tests.ranks`."""
    from megatron_patches.run.run_directory import Launch
    from megatron_patches.training.train import train

    os.environ.update(environment or {})
    train(Launch(Path(launch_directory)))
