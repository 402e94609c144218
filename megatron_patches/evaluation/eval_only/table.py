"""A result as people read it at the end of a log. Torch-free."""

from collections.abc import Iterator, Mapping

from megatron_patches.artefacts.evaluations.result import Metric, TaskResult
from megatron_patches.sizes import counted

_HEAD = f"{'loss':>10} {'std. error':>10} {'perplexity':>12} {'targets':>15}  group"


def result_lines(result: TaskResult) -> Iterator[str]:
    """A line for each group, and for all of them together; losses in nats per target."""
    limit = f", first {counted(result.limit, 'sample')} of each group" if result.limit else ""
    length = f", {result.length:,} tokens at once" if result.length else ""
    yield f"validation of {result.run} at step {result.step:,}{limit}{length}"
    yield _HEAD
    for name, part in sorted(result.parts.items()):
        yield _line(part.metrics, part.examples, name)
    yield _line(result.metrics, result.examples, "all" if result.parts else result.task)


def _line(metrics: Mapping[str, Metric], targets: int, name: str) -> str:
    loss, perplexity = metrics["loss"], metrics.get("perplexity")
    error = "" if loss.standard_error is None else f"{loss.standard_error:.5f}"
    shown = "" if perplexity is None else f"{perplexity.value:.5g}"
    return f"{loss.value:>10.5f} {error:>10} {shown:>12} {targets:>15,}  {name}"
