"""One data-parallel rank runs ZeRO 0 for 1 and 2: the same numbers to the last bit, without the copies."""

from pathlib import Path

import pytest

from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_engine import Steps, record_steps
from tests.small_training import SmallData, overrides


def both_ways(config: RunConfig) -> tuple[Steps, Steps]:
    """Losses and norms as the layout decides, and with DeepSpeed's own stage."""
    from tests.small_engine import groups_of

    groups = groups_of(config)
    decided = record_steps(config, 6, groups)
    Layout.zero_stage = lambda self, asked: asked  # type: ignore[method-assign]  # this process ends with the test
    return decided, record_steps(config, 6, groups)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [1, 2])
def test_results_are_unchanged(stage: int, precision: str, small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path, overrides(parallel__zero_stage=stage, training__precision=precision))
    decided, deepspeeds = run_on_ranks(both_ways, 1, config)[0]
    assert decided == deepspeeds
    assert len({loss for loss, _ in decided}) == 6


def test_a_stage_that_shares_something_is_kept() -> None:
    assert [Layout(2, 1, 1).zero_stage(asked) for asked in range(4)] == [0, 0, 0, 3]
    assert [Layout(1, 1, 2).zero_stage(asked) for asked in range(4)] == [0, 1, 2, 3]
