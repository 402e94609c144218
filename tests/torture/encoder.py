"""Whether a small encoder learns on the demo's corpus: `python -m tests.torture.encoder`.

200 steps of 4,096 tokens on the Python standard library. Its loss on held-out documents must be a nat below the entropy
of the masked tokens there, which no model that ignores the context can pass. It is trained by Muon: with AdamW it was
0.4 nats below, with Muon 1.2.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.text.tokenizer_training import train_bpe
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from tests.ranks import run_on_ranks
from tools.commands.demo import unigram_entropy
from tools.commands.stdlib_corpus import write_stdlib_corpus

RANKS = 2
REQUIRED_GAIN = 1.0
"""nats per masked token"""
RUN_YAML = """
why: whether an encoder learns
model: {{name: encoder, layers: 3, hidden_size: 192, attention_heads: 4, ffn_size: 768, vocab_size: 4096}}
objective: {{name: masked_lm, probability: 0.2}}
data: {{path: {folder}/text, tokenizer: {folder}/tokenizer, split: "90,10", sequence_length: 128}}
training: {{steps: 200, global_batch_size: 32, micro_batch_size: 16, precision: fp32, seed: 7}}
optimizer: {{name: muon, learning_rate: 2e-2, weight_decay: 0.01, rest: {{learning_rate: 4e-3}}}}
schedule: {{name: cosine, warmup: 20, final_learning_rate: 1e-3}}
checkpoint: {{every_steps: 200}}
evaluation: {{every_steps: 200, samples: 256}}
"""


def make_data(folder: Path) -> None:
    """`text` and `tokenizer`, of 4,096 tokens with a mask token."""
    corpus, trained, own = folder / "corpus.jsonl", folder / "trained", folder / "tokenizer"
    write_stdlib_corpus(corpus)
    train_bpe([corpus], trained, 4096, ("<|endoftext|>", "<|mask|>"))
    own.mkdir()
    shutil.copy(trained / "tokenizer.json", own)
    (own / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "mask_token": "<|mask|>"}))
    preprocess(PreprocessRequest(inputs=[corpus], output=folder / "text", tokenizer=own, append_eod=True))


def learn(config: RunConfig, steps: int, said: int = 20) -> tuple[float, NDArray[np.int64]]:
    """Trains on this rank, a thread of its own: (validation loss in nats per masked token, what was masked here)."""
    from data_tools.run_data import RunData
    from megatron_patches.checkout import CHECKOUT
    from megatron_patches.objectives.batches import validation_micro_batches
    from tests.small_engine import SmallEngine

    small = SmallEngine(config)
    for done in range(0, steps, said):
        started = time.monotonic()
        loss, norm = small.train(min(said, steps - done))[-1]
        if small.groups.rank == 0:
            print(
                f"step {small.step}: loss {loss:.3f}, norm {norm:.2f}, {time.monotonic() - started:.1f} s", flush=True
            )
    assert config.evaluation is not None
    (group,) = RunData(config.data, CHECKOUT, config.lengths, config.place_after).groups
    batches = validation_micro_batches(
        group.samples, small.batches.objective.for_validation, config.evaluation.samples,
        config.training.micro_batch_size, config.model.vocabulary, small.groups,
    )  # fmt: skip
    small.batches.close()
    return small.engine.evaluate(batches)["loss"].mean, masked_tokens(batches)


def masked_tokens(batches: Sequence[MicroBatch]) -> NDArray[np.int64]:
    """The masked tokens of micro-batches: their `unigram_entropy` is the best loss of a model that sees no context."""
    found: NDArray[np.int64] = np.concatenate([batch.labels[batch.weights > 0].numpy() for batch in batches])
    return found


def main() -> int:
    """0 where the encoder has learned enough."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data(folder)
        path = folder / "tr900-tests" / "tr900a-2M-encoder.yaml"
        path.parent.mkdir()
        path.write_text(RUN_YAML.format(folder=folder))
        config = load_run(path)
        started = time.monotonic()
        found = run_on_ranks(learn, RANKS, config, config.timetable.steps, timeout=1800)
        seconds = time.monotonic() - started
    loss, entropy = found[0][0], unigram_entropy(np.concatenate([masked for _, masked in found]))
    gain = entropy - loss
    told = f"loss {loss:.3f}, unigram entropy {entropy:.3f}: {gain:.3f} nats below, {REQUIRED_GAIN} needed"
    print(f"{told}; {seconds:.0f} s")
    return 0 if gain >= REQUIRED_GAIN else 1


if __name__ == "__main__":
    sys.exit(main())
