"""The metric by which a task is compared where nobody names one."""

from collections.abc import Collection, Mapping

from megatron_patches.artefacts.evaluations.result import Metric

_FIRST = ("acc_norm", "acc")
_BEGINNINGS = ("exact_match.flexible", "exact_match.strict", "exact_match")
_LOSSES = ("bits_per_byte", "byte_perplexity", "word_perplexity", "perplexity", "loss")


def primary_metric(metrics: Mapping[str, Metric], kept: Collection[str]) -> str | None:
    """acc_norm, acc, an exact match (flexible before strict), a loss, else the first by name.

    Args:
        metrics: of a result.
        kept: those that its items have too; others are not compared.

    Returns:
        None where the items have none of them.
    """
    shared = sorted(name for name in metrics if name in kept)
    wanted = [
        *(name for name in _FIRST if name in shared),
        *(name for beginning in _BEGINNINGS for name in shared if name.startswith(beginning)),
        *(name for name in _LOSSES if name in shared),
        *shared,
    ]
    return wanted[0] if wanted else None
