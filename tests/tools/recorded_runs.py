"""Runs that were never trained: event files with numbers that a test can predict."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from megatron_patches.events.writing import EventWriter
from megatron_patches.run.reading import load_run, to_yaml

CHECKOUT = Path(__file__).resolve().parents[2]
TOKENS = 1000
"""tokens of a sample"""


def record_launch(
    events: Path,
    launch: str,
    start: int,
    losses: Mapping[int, float],
    validations: Iterable[tuple[int, str, float]] = (),
    batch: int = 1,
    outcome: str | None = "finished",
) -> None:
    """A launch of these steps: a step's loss by its number; 9 s for each of the first three steps, then 2 s."""
    writer = EventWriter(events, launch, "trainer")
    writer.write("start", step=start, layout={})
    pending = sorted(validations)
    for step, loss in sorted(losses.items()):
        seconds = 9.0 if step - start <= 3 else 2.0
        tokens = step * batch * TOKENS
        writer.write(
            "step", step=step, samples=step * batch, tokens=tokens, batch_size=batch, loss=loss,
            learning_rate=0.001 * step, grad_norm=0.5, seconds=seconds, tokens_per_second=batch * TOKENS / seconds,
            tflops_per_process=1.5,
        )  # fmt: skip
        for at, source, found in pending:
            if at == step:
                writer.write("validation", step=at, samples=at * batch, tokens=tokens, source=source, loss=found)
    if outcome:
        writer.write("end", step=max(losses, default=start), outcome=outcome, reason=None)
    writer.close()


def make_run(runs: Path, name: str, *overrides: str) -> Path:
    """The folder of a run that was launched once and has recorded nothing yet; returns its folder of events."""
    config = load_run(CHECKOUT / "train" / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml", overrides)
    (runs / name / "launches" / "0001").mkdir(parents=True)
    (runs / name / "config.yaml").write_text(to_yaml(config))
    return runs / name / "events"
