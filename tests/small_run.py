"""A run small enough for tests of everything that happens before training."""

from pathlib import Path

SMALL_RUN = """\
why: tests
model: {layers: 4, hidden_size: 16, attention_heads: 4, ffn_size: 64, vocab_size: 320}
data: {path: data/text, tokenizer: data/tokenizer, split: "90,10", sequence_length: 8}
training: {steps: 10, global_batch_size: 8, micro_batch_size: 2, precision: fp32}
optimizer: {name: adamw, learning_rate: 6e-4, beta2: 0.98}
schedule: {name: cosine, warmup: 2, final_learning_rate: 6e-5}
checkpoint: {every_steps: 5}
"""


def write_run(path: Path, text: str = SMALL_RUN) -> Path:
    """Writes a run's YAML and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
