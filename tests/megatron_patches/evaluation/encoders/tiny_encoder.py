"""A small encoder of random weights as a run's checkpoint, with a WordPiece tokenizer, and a task that it can learn."""

import json
import random
from pathlib import Path
from typing import Any

from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from tests.megatron_patches.transformers_exchange.checkpoints import save_random
from tests.small_training import overrides

NAME = "tr901a-20K-encoder"
WORDS = ("sun", "moon", "rain", "snow", "wind", "tree", "leaf", "root", "##y", "##s")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXTS = (
    "sun moon rain",
    "windy trees snow leaf roots sun moon rain snow wind",
    "leaf",
    "sun moon rain",
    "snow zzz sun",
)
_YAML = """
why: an encoder for tests
model: {{name: encoder, layers: 2, hidden_size: 16, attention_heads: 2, ffn_size: 48, vocab_size: 16}}
objective: {{name: masked_lm, probability: 0.2}}
data: {{path: {folder}/text, tokenizer: {folder}/tokenizer, split: "8,2", sequence_length: 8}}
training: {{steps: 8, global_batch_size: 4, micro_batch_size: 4, precision: fp32, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-3}}
schedule: {{name: constant}}
checkpoint: {{every_steps: 8}}
evaluation: {{every_steps: 8, samples: 2}}
"""


def write_tokenizer(folder: Path) -> Path:
    """A WordPiece of whole words, whose ids are their places."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config = {"tokenizer_class": "BertTokenizer", **dict(zip(roles, SPECIAL, strict=True))}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def encoder_run(folder: Path, **settings: object) -> RunConfig:
    """A run whose tokenizer lies in the folder; its dataset does not exist."""
    path = folder / "tr901-tests" / f"{NAME}.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_text(_YAML.format(folder=folder))
        write_tokenizer(folder / "tokenizer")
    return load_run(path, overrides(**settings))


def save_encoder(folder: Path, step: int = 8, **settings: Any) -> Path:
    """A checkpoint of it below `folder/runs`."""
    return save_random(folder / "runs", encoder_run(folder, **settings), step=step)


def write_word_task(folder: Path, train: int = 160, dev: int = 60, shuffled: bool = False) -> Path:
    """GLUE's files of SST-2 whose label is whether the sun occurs, or, shuffled, is not to be known."""
    draw = random.Random(3)
    folder.mkdir(parents=True, exist_ok=True)
    others = WORDS[1:8]
    for name, rows in (("train", train), ("dev", dev)):
        lines = ["sentence\tlabel"]
        for number in range(rows):
            words = draw.choices(others, k=4)
            if number % 2:
                words[draw.randrange(4)] = "sun"
            label = draw.randrange(2) if shuffled else number % 2
            lines.append(f"{' '.join(words)}\t{label}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder
