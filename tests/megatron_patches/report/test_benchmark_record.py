"""The record of measurements, and tables made of it."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.profiling.time_breakdown import KINDS
from megatron_patches.report.record import Row, append, measured, read_rows, record_files
from megatron_patches.report.tables import as_markdown, render, render_page
from tests.megatron_patches.benchmark.test_benchmark import FOUND

PAGE = "# Speed\n<!-- table: cpu -->\nold\n<!-- end of table -->\nthe end\n"
WAITING = Row("cpu", "ZeRO 3", "tools/tflops bench b", None, "no GPU")


def test_a_measurement_takes_the_place_of_a_row_that_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for row in (replace(WAITING, row="ZeRO 0"), WAITING, measured("cpu", "ZeRO 0", ["tools/tflops", "bench"], FOUND)):
        append(path, row)
    rows = read_rows([path])
    assert [(row.row, row.found is None) for row in rows] == [("ZeRO 0", False), ("ZeRO 3", True)]
    assert rows[0].found == asdict(FOUND) | {"mfu": None, "agrees": True}


def test_a_page_is_made_of_the_record(tmp_path: Path) -> None:
    rows = [measured("cpu", "ZeRO 0", ["tools/tflops", "bench", "a"], FOUND), WAITING]
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert not render_page(page, rows, check=True)
    assert page.read_text() == PAGE
    assert not render_page(page, rows, check=False)
    made = page.read_text()
    assert "| ZeRO 0 | TP 1, PP 1, DP 1, ZeRO 0 | 2 | 950 (900 to 1,000) | 0.950 (0.930 to 0.970) |" in made
    assert "| ZeRO 3 | unmeasured: no GPU |" in made
    assert made.startswith("# Speed\n<!-- table: cpu -->\n| row |")
    assert made.endswith("<!-- end of table -->\nthe end\n")
    assert render_page(page, rows, check=True)


def test_a_profiled_row_shows_where_its_time_went() -> None:
    breakdown = dict.fromkeys(KINDS, 0.0) | {"GEMM": 0.03, "host gaps": 0.01}
    found = [replace(FOUND, breakdown=breakdown), FOUND]
    rows = [measured("cpu", name, ["bench"], each) for name, each in zip(("traced", "not"), found, strict=True)]
    lines = as_markdown("cpu", rows).splitlines()
    [head] = [
        number for number, line in enumerate(lines) if line.startswith("| ms of a profiled step | whole | GEMM |")
    ]
    assert lines[head + 2].startswith("| traced | 40.0 | 30.0 (75.0%) | 0.0 (0.0%) |")
    assert lines[head + 2].endswith("| 10.0 (25.0%) |")
    assert (lines[head - 1], lines[head + 3]) == ("", ""), "a table of its own, with one row"


def test_a_table_that_nobody_measured_is_no_table() -> None:
    with pytest.raises(TrainyardError, match="no row of a table gpu"):
        as_markdown("gpu", [WAITING])
    assert render("no tables", []) == "no tables"


def test_a_torn_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"table": "cpu"\n')
    with pytest.raises(TrainyardError, match=r"a\.jsonl:1: no row"):
        read_rows([path])


def test_the_guide_says_what_the_record_says() -> None:
    assert render_page(CHECKOUT / "train" / "tflops_optimization.md", read_rows(record_files(CHECKOUT)), check=True)
