"""Files of weights: one parameter in memory at a time, and shards that are planned from shapes alone."""

import resource
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest

from tests.megatron_patches.transformers_exchange.card.exports import format_of_run, random_source, run_of
from tests.ranks import run_on_ranks

LARGE_ROWS = 1 << 18
"""of 128 numbers: 128 MiB in fp32, for the embedding and again for the head"""


def peak_of_writing(folder: Path) -> tuple[float, float]:
    """MiB by which the process grew while a model with two large tables was written, and MiB of one of them."""
    import torch

    from megatron_patches.checkpoint.files.state_tensor import StateTensor, Stretch
    from megatron_patches.parameters.tensor_slice import TensorSlice
    from megatron_patches.transformers_exchange.card.source import Source
    from megatron_patches.transformers_exchange.weight_files import plan_shards, write_shards

    def made(name: str, shape: tuple[int, ...]) -> StateTensor:
        whole = TensorSlice.whole(shape)
        stretch = Stretch(whole, 0, prod(shape), lambda first, last: torch.full((last - first,), 1.5))
        return StateTensor(name, "weight", shape, torch.float32, (stretch,))

    small = run_of("gpt2-untied")
    sizes = {"vocab_size": LARGE_ROWS, "vocab_multiple": 1, "hidden_size": 128, "attention_heads": 4}
    config = small.model_copy(update={"model": small.model.model_copy(update=sizes)})
    source = Source("a" * 64, {row.name: made(row.name, tuple(row.shape)) for row in config.parameters})
    shards = plan_shards(format_of_run(small, "gpt2-untied"), config, source, 1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_shards(folder, shards, lambda told: None)
    assert (folder / "model.safetensors").stat().st_size > 2 * LARGE_ROWS * 128 * 4
    (folder / "model.safetensors").unlink()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, LARGE_ROWS * 128 * 4 / (1 << 20)


@pytest.mark.slow
def test_a_model_is_never_in_memory(tmp_path: Path) -> None:
    """One table, and pieces of 64 MiB that are read of it."""
    grown, table = run_on_ranks(peak_of_writing, 1, tmp_path)[0]
    assert 0.5 * table < grown < 1.75 * table


@pytest.mark.parametrize("largest", [1, 20_000, 10**9])
def test_shards_hold_every_tensor_once_and_no_more_than_was_asked_for(largest: int) -> None:
    from megatron_patches.transformers_exchange.weight_files import plan_shards

    config = run_of("llama", "bf16")
    format, source = format_of_run(config, "llama"), random_source(config)
    shards = plan_shards(format, config, source, largest)
    pairs = format.pairs(config.model, config.parameters)
    assert [name for shard in shards for name in shard.announced] == [name for pair in pairs for name in pair.theirs]
    assert all(shard.bytes <= largest or len(shard.pieces) == 1 for shard in shards)
    padding = 3 * config.model.hidden_size * 2  # rows of both tables, which are left out
    held = sum(2 * tensor.elements for tensor in source.weights.values())
    assert sum(shard.bytes for shard in shards) == held - 2 * padding
    assert len(shards) == {1: len(pairs), 10**9: 1}.get(largest, len(shards))
    together = pairwise(shards)
    assert all(first.bytes + second.pieces[0].bytes > largest for first, second in together), "a file could be fuller"
