"""Pictures of measurements."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.profiling.time_breakdown import KINDS
from megatron_patches.report.pictures import draw_breakdown, draw_roofline, roof_of
from tests.megatron_patches.benchmark.test_benchmark import FOUND
from tests.small_training import SmallData

PROFILED = asdict(
    replace(FOUND, breakdown=dict.fromkeys(KINDS, 0.01), roof={"tflops": 0.15, "bytes_per_second": 2e10}, threads=2)
)


@pytest.mark.parametrize(
    ("found", "roof"),
    [
        (PROFILED, ("measured, fp32, 2 threads: 0.15 TFLOP/s, 20 GB/s", 0.15, 2e10)),
        (asdict(FOUND), None),
        ({key: value for key, value in asdict(FOUND).items() if key != "roof"}, None),
        (asdict(replace(FOUND, hardware="8 x NVIDIA H200", precision="bf16")),
         ("H200, bf16: 989.4 TFLOP/s", 989.4, 4800e9)),
        (asdict(replace(FOUND, hardware="1 x Tesla V100-SXM2-32GB", precision="bf16")), None),
    ],
)  # fmt: skip
def test_a_roof_is_a_data_sheets_or_measured_or_not_there(
    found: dict[str, Any], roof: tuple[str, float, float] | None
) -> None:
    assert roof_of(found) == roof


def test_the_same_record_gives_the_same_pictures(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path)
    drawn = []
    for number in range(2):
        roofline, time = tmp_path / f"{number}-roofline.svg", tmp_path / f"{number}-time.svg"
        draw_roofline("tr900a-28K-small", [(PROFILED, config), (asdict(FOUND), config)], roofline)
        draw_breakdown("tr900a-28K-small", [PROFILED, PROFILED], time)
        drawn.append((roofline.read_bytes(), time.read_bytes()))
    assert drawn[0] == drawn[1]
    assert all(len(content) < 100_000 for content in drawn[0])
