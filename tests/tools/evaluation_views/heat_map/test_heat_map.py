"""Heat maps of evaluations: their numbers, what they are relative to, what they look like."""

import json
import math
from pathlib import Path

import pytest

from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from tests.tools.shelved_results import gathered, made_result, mmlu, share
from tools.evaluation_views.choice import metrics_of
from tools.evaluation_views.gathered import Gathered
from tools.evaluation_views.heat_map.base import Base, read_base
from tools.evaluation_views.heat_map.numbers import Cell, Heat, caption, heat_of
from tools.evaluation_views.heat_map.picture import draw_heat, written
from tools.evaluation_views.heat_map.text import text_heat
from tools.evaluation_views.outputs import picture_bytes

RUN = "tr9a-4M-small"


def heat(of: Gathered, base: Base | None = None, absolute: bool = False, order: str = "name") -> Heat:
    return heat_of(of, metrics_of(of, []), base, absolute, "gain" if order == "gain" else "name")


def shown(of: Heat) -> dict[str, list[float | None]]:
    return {row.name: [cell and round(cell.shown, 9) for cell in row.cells] for row in of.rows}


def test_a_map_relative_to_chance_tells_the_noise() -> None:
    of = gathered(mmlu(RUN, 100, {"b": 0.0, "a": 0.08}), mmlu(RUN, 200, {"b": -0.05, "a": 0.2}))
    found = heat(of)
    assert shown(found) == {"mmlu": [4, 7.5], "a": [8, 20], "b": [0, -5]}
    cell = found.rows[1].cells[0]
    assert cell is not None
    assert cell.error == pytest.approx(100 * math.sqrt(0.33 * 0.67 / 99))
    assert [[cell is not None and cell.within_noise for cell in row.cells] for row in found.rows] == [
        [True, False], [True, False], [True, True],
    ]  # fmt: skip
    assert caption(found, None, "pale")[1].startswith("4 of 6 differences within 1.96 standard errors (unpaired), pale")
    assert [row.name for row in heat(of, order="gain").rows] == ["mmlu", "a", "b"]
    assert shown(heat(of, absolute=True))["a"] == [33, 45]
    assert caption(heat(of, absolute=True), None, "pale") == []


def test_rows_by_gain() -> None:
    of = gathered(mmlu(RUN, 100, {"a": 0.0, "b": 0.2, "c": 0.1}))
    assert [row.name for row in heat(of, order="gain").rows] == ["mmlu", "b", "c", "a"]


def test_parts_whose_answers_are_all_alike_are_not_sure() -> None:
    """Five wrong answers of five do not show that a model guesses worse than chance."""
    few, many = (heat(gathered(mmlu(RUN, 1, {"a": -0.25}, examples))).rows[1].cells[0] for examples in (5, 500))
    assert few is not None
    assert many is not None
    assert few.error == pytest.approx(100 * math.sqrt(1 / 7 * 6 / 7 / 7))
    assert few.within_noise
    assert not many.within_noise


def test_a_map_relative_to_a_step_takes_its_standard_error_too() -> None:
    base = Base("base", {"mmlu": mmlu("base", 9, {"a": 0.1, "b": 0.1})})
    found = heat(gathered(mmlu(RUN, 1, {"a": 0.2, "b": 0.5})), base)
    assert shown(found) == {"mmlu": [25], "a": [10], "b": [40]}
    cell = found.rows[1].cells[0]
    assert cell is not None
    assert cell.error == pytest.approx(100 * math.hypot(math.sqrt(0.45 * 0.55 / 99), math.sqrt(0.35 * 0.65 / 99)))
    assert cell.within_noise


def test_a_base_that_was_asked_something_else_is_refused() -> None:
    base = Base("tr9b@5", {"mmlu": mmlu("tr9b", 5, {"a": 0.1}).model_copy(update={"definition": "0" * 64, "shots": 5})})
    with pytest.raises(Refused, match="tr9b@5 and this run were not asked the same: shots 5 and 0"):
        heat(gathered(mmlu(RUN, 1, {"a": 0.2})), base)
    with pytest.raises(Refused, match="tr9b@5 has no result arc; it has mmlu"):
        heat(gathered(made_result(RUN, 1, "arc", {"acc": share(0.3, 10)})), base)
    fits = mmlu(RUN, 2, {"a": 0.2}).model_copy(update={"definition": "0" * 64, "shots": 5})
    some = heat(gathered(mmlu(RUN, 1, {"a": 0.2}), fits), base)
    assert [place.step for place in some.places] == [2]
    assert some.notes == ("mmlu of step 1 and others like it left out: shots 5 and 0",)


def test_without_a_base_the_latest_definition_is_shown() -> None:
    old = mmlu(RUN, 1, {"a": 0.2}).model_copy(update={"definition": "0" * 64, "version": "0"})
    found = heat(gathered(old, mmlu(RUN, 2, {"a": 0.2})))
    assert [place.step for place in found.places] == [2]
    assert found.notes == (
        "mmlu of step 1 and others like it left out, they are of another definition: version 1 and 0",
    )


def test_what_has_no_scale_in_common_or_no_chance_is_refused() -> None:
    loss = made_result(RUN, 1, "wiki", {"loss": Metric(value=2.0, higher_is_better=False)})
    with pytest.raises(Refused, match="no scale in common: choose by --tasks"):
        heat(gathered(loss, mmlu(RUN, 1, {"a": 0.2})))
    with pytest.raises(Refused, match="what chance gives is not known of wiki"):
        heat(gathered(loss))
    assert shown(heat(gathered(loss), absolute=True)) == {"wiki": [2.0]}
    less = heat(gathered(loss), Base("b", {"wiki": loss.model_copy(update={"metrics": {"loss": Metric(value=3.0)}})}))
    assert shown(less) == {"wiki": [-1.0]}
    assert (less.unit, less.higher_is_better) == ("loss", False)
    assert "a difference without a known standard error is shown as if it were sure" in less.notes


RESULTS = {
    "results": {
        "mmlu": {"acc,none": 0.3, "acc_stderr,none": 0.03, "alias": "mmlu"},
        "mmlu_a": {"acc,none": 0.35, "acc_stderr,none": 0.05},
    },
    "n-shot": {"mmlu_a": 0},
    "n-samples": {"mmlu_a": {"original": 100, "effective": 100}},
}


@pytest.fixture
def results_file(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    return path


def test_a_base_that_lm_eval_wrote(results_file: Path) -> None:
    found = heat(gathered(mmlu(RUN, 1, {"a": 0.2, "b": 0.1})), read_base(str(results_file), invalid=False))
    assert shown(found) == {"mmlu": [10], "a": [10]}
    cell = found.rows[1].cells[0]
    assert cell is not None
    assert cell.error == pytest.approx(100 * math.hypot(0.05, math.sqrt(0.45 * 0.55 / 99)))
    assert found.notes[0] == "left out, the base has no such result: b"
    assert "cannot be checked" in found.notes[1]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n-shot", {"mmlu_a": 5}, "mmlu_a was asked with 5 shots, here with 0"),
        ("n-samples", {"mmlu_a": {"effective": 10}}, "mmlu_a has 10 items, here 100"),
    ],
)
def test_a_file_that_asked_something_else(results_file: Path, key: str, value: object, message: str) -> None:
    results_file.write_text(json.dumps({**RESULTS, key: value}))
    with pytest.raises(Refused, match=message):
        heat(gathered(mmlu(RUN, 1, {"a": 0.2})), read_base(str(results_file), invalid=False))


def test_no_base(results_file: Path) -> None:
    results_file.write_text('{"results": [1]}')
    with pytest.raises(Damaged, match="is no results file of lm-eval"):
        read_base(str(results_file), invalid=False)
    with pytest.raises(Missing):
        read_base(str(results_file) + "x.json", invalid=False)
    with pytest.raises(TrainyardError, match="there is no run directory"):
        read_base("tr9a", invalid=False)


def test_a_map_as_text() -> None:
    of = gathered(mmlu(RUN, 100, {"b": 0.0, "a": 0.3}), made_result(RUN, 200, "mmlu2", {"acc": share(0.3, 10)}))
    head, rows = text_heat(heat(of), "tokens")
    assert head == ["tokens", "200M", "400M"]
    assert rows == [
        ["mmlu", "+15.0 ", "-"], ["mmlu.a", "+30.0 ", "-"], ["mmlu.b", "(+0.0)", "-"], ["mmlu2", "-", "(+5.0)"],
    ]  # fmt: skip


def test_a_map_as_a_picture_has_its_numbers_as_texts() -> None:
    found = heat(gathered(mmlu(RUN, 100, {"b$x_1$": 0.0, "a": 0.3})))
    under = caption(found, None, "pale")
    drawn = picture_bytes(draw_heat(found, under, "steps"), ".svg")
    text = drawn.decode()
    for expected in ("b$x_1$", "+30.0", "+0.0", "difference, percentage points", "100", *under):
        assert f">{expected}<" in text, expected
    assert drawn == picture_bytes(draw_heat(found, under, "steps"), ".svg")
    assert "<dc:date>" not in text


def test_a_small_loss_is_no_negative_zero() -> None:
    heat = Heat("", (), (), (), "base", "percentage points", True, ())
    assert written(heat, Cell(0.25, -0.01, None, True)) == "+0.0"
    assert written(heat, Cell(0.25, -0.06, None, True)) == "-0.1"


def test_small_cells_have_no_numbers() -> None:
    found = heat(gathered(*(mmlu(RUN, step, {"a": 0.25}) for step in range(1, 101))))
    text = picture_bytes(draw_heat(found, [], "steps"), ".svg").decode()
    assert ">+25.0<" not in text
    assert ">mmlu<" in text
