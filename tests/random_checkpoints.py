"""Checkpoints of full-size models that were never trained: random weights, written a piece at a time.

The tokenizer is a byte-level one of GPT-2's 50,257 ids, trained on the standard library's sources.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.text.tokenizer_training import train_bpe
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.artefacts.folders import DATA_PARENTS, checkpoint_name
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run, to_yaml
from tools.commands.stdlib_corpus import write_stdlib_corpus

if TYPE_CHECKING:
    from torch import Tensor

    from megatron_patches.checkpoint.files.state_tensor import StateTensor
    from megatron_patches.parameters.row import ParameterRow

STEP = 1000
VOCABULARY = 50_257
_YAML = """
why: a model that was never trained
model: {{layers: {layers}, hidden_size: {hidden}, attention_heads: {heads}, ffn_size: {ffn}, vocab_size: {vocabulary}}}
data: {{path: {folder}/text, tokenizer: {folder}/tokenizer, split: "9,1", sequence_length: {positions}}}
training: {{steps: 1000, global_batch_size: 1, micro_batch_size: 1, precision: {precision}, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-4}}
schedule: {{name: constant}}
checkpoint: {{every_steps: 1000}}
"""
_SPREAD = 0.02
"""standard deviation of weights, as GPT-2 begins with"""


@dataclass(frozen=True)
class Size:
    """Of a GPT-2."""

    name: str
    """of the run"""
    layers: int
    hidden: int
    heads: int
    positions: int


SMALL = Size("tr900a-124M-random", 12, 768, 12, 1024)
"""the smallest GPT-2"""
MIDDLE = Size("tr900b-350M-random", 24, 1024, 16, 2048)
LARGE = Size("tr900c-1B3-random", 24, 2048, 32, 2048)
"""1.3 billion parameters, as GPT-3 XL"""


def make_tokenizer(folder: Path) -> None:
    """Trains `folder/tokenizer`; ten seconds."""
    write_stdlib_corpus(folder / "corpus.jsonl")
    train_bpe([folder / "corpus.jsonl"], folder / "tokenizer", VOCABULARY)


def random_run(folder: Path, size: Size, precision: str) -> RunConfig:
    """The run of a model that reads with `folder/tokenizer`; its datasets do not exist."""
    path = folder / f"tr900-{precision}" / f"{size.name}.yaml"
    path.parent.mkdir()
    path.write_text(
        _YAML.format(
            layers=size.layers, hidden=size.hidden, heads=size.heads, ffn=4 * size.hidden, vocabulary=VOCABULARY,
            folder=folder, positions=size.positions, precision=precision,
        )
    )  # fmt: skip
    return load_run(path)


def save_random(folder: Path, config: RunConfig) -> Path:
    """A checkpoint of weights alone; memory holds one piece of 16 million numbers.

    Returns its folder, `folder/NAME-PRECISION/checkpoints/step-...-weights`.
    """
    from megatron_patches.checkpoint.offline.writing import OfflineContent, write_offline
    from megatron_patches.checkpoint.tokenizer_files.travelling import read_tokenizer

    tokenizer = Path(config.data.tokenizer)
    identity = tokenizer_id(find_tokenizer(tokenizer))
    facts = {
        "run": config.name, "launch": "0001", "step": STEP, "samples": STEP,
        "tokens": STEP * config.lengths.of("tokens"), DATA_PARENTS: 1, "identity": {"tokenizer": identity},
    }  # fmt: skip
    content = OfflineContent(facts, None, to_yaml(config).encode(), (identity,), read_tokenizer(tokenizer, identity))
    target = folder / f"{config.name}-{config.training.precision}" / "checkpoints" / checkpoint_name(STEP, "weights")
    write_offline(target, [_random(row, number, config) for number, row in enumerate(config.parameters)], 2, content)
    return target


def _random(row: "ParameterRow", number: int, config: RunConfig) -> "StateTensor":
    import torch

    from megatron_patches.checkpoint.files.state_tensor import StateTensor, Stretch
    from megatron_patches.parameters.tensor_slice import TensorSlice
    from megatron_patches.parameters.torch_dtypes import PRECISIONS

    dtype = PRECISIONS[config.training.precision]

    def draw(first: int, last: int) -> "Tensor":
        chance = torch.Generator().manual_seed(number * 2**40 + first)
        drawn = torch.randn(last - first, generator=chance)
        return drawn.mul_(_SPREAD).add_(row.initial == "ones").to(dtype)

    whole = TensorSlice.whole(row.shape)
    return StateTensor(row.name, "weight", row.shape, dtype, (Stretch(whole, 0, whole.elements, draw),))
