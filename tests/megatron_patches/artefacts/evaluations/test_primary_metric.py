"""The metric that stands for a task."""

import pytest

from megatron_patches.artefacts.evaluations.primary_metric import primary_metric


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        (["acc", "acc_norm", "acc_norm_token"], "acc_norm"),
        (["acc", "f1"], "acc"),
        (["exact_match.flexible-extract", "exact_match.strict-match"], "exact_match.strict-match"),
        (["exact_match.flexible", "exact_match.strict"], "exact_match.strict"),
        (["exact_match"], "exact_match"),
        (["byte_perplexity", "loss", "perplexity"], "perplexity"),
        (["bytes", "bits_per_byte", "log_likelihood", "tokens"], "bits_per_byte"),
        (["f1", "bleu"], "bleu"),
        ([], None),
    ],
)
def test_the_metric_that_stands_for_a_task(metrics: list[str], chosen: str | None) -> None:
    assert primary_metric(metrics) == chosen
