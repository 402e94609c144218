"""Results beside each other: which metric stands for a task, and what keeps two from being compared."""

import pytest

from megatron_patches.artefacts.evaluations.definitions import differences
from megatron_patches.artefacts.evaluations.primary_metric import primary_metric
from megatron_patches.artefacts.evaluations.result import DataFile
from tests.tools.shelved_results import definition, made_result, share

RUN = "tr9a-4M-small"


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        (["acc", "acc_norm", "acc_norm_token"], "acc_norm"),
        (["acc", "f1"], "acc"),
        (["exact_match.flexible-extract", "exact_match.strict-match"], "exact_match.strict-match"),
        (["byte_perplexity", "loss", "perplexity"], "perplexity"),
        (["log_likelihood", "tokens", "bits_per_byte"], "bits_per_byte"),
        (["f1", "bleu"], "bleu"),
        ([], None),
    ],
)
def test_the_metric_that_stands_for_a_task(metrics: list[str], chosen: str | None) -> None:
    assert primary_metric(metrics) == chosen


def test_what_differs() -> None:
    one = made_result(RUN, 1, "x", {"acc": share(0.3, 100)})
    data = [DataFile(name="y.jsonl", sha256=definition("y"))]
    assert differences(one, one.model_copy(update={"data": data})) == [
        f"data x.jsonl ({definition('x')[:8]}) and y.jsonl ({definition('y')[:8]})"
    ]
    moved = [DataFile(name="elsewhere/x.jsonl", sha256=definition("x"))]
    told = differences(one, made_result(RUN, 1, "x", one.metrics, asked="other").model_copy(update={"data": moved}))
    assert len(told) == 1
    assert told[0].startswith("prompts or metrics differ")
