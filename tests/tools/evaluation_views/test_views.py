"""Results of evaluations as rows, columns, curves and maps, without a command line."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_patches.artefacts.evaluations.result import DataFile, Metric, TaskResult
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from tests.tools.shelved_results import definition, made_result, mmlu, put, share, subjects
from tools.evaluation_views.aggregated import aggregated
from tools.evaluation_views.choice import metrics_of, only_tasks, primary, words_of
from tools.evaluation_views.columns import Place, columns_of, part_columns, places_of, tokens_at
from tools.evaluation_views.curve_picture import draw_curves
from tools.evaluation_views.curve_text import text_panels
from tools.evaluation_views.curves import Panels, panels_of
from tools.evaluation_views.definitions import definitions_of, differences
from tools.evaluation_views.gathered import Found, Gathered, gather
from tools.evaluation_views.heat import Heat, caption, heat_of
from tools.evaluation_views.heat_base import Base, read_base
from tools.evaluation_views.heat_picture import draw_heat
from tools.evaluation_views.heat_text import text_heat
from tools.evaluation_views.outputs import check_output, picture_bytes
from tools.evaluation_views.table import number

RUN = "tr9a-4M-small"


def gathered(*results: TaskResult) -> Gathered:
    """As if they had been read, by step."""
    found = tuple(Found(result.run, result) for result in sorted(results, key=lambda each: each.step))
    return Gathered(tuple(dict.fromkeys(result.run for result in results)), found)


def heat(of: Gathered, base: Base | None = None, absolute: bool = False, order: str = "name") -> Heat:
    return heat_of(of, metrics_of(of, []), base, absolute, "gain" if order == "gain" else "name")


def panels(of: Gathered, axis: str | None = None) -> Panels:
    chosen = None if axis is None else "tokens" if axis == "tokens" else "steps"
    return panels_of(of, metrics_of(of, []), definitions_of(of.found), chosen)


def shown(of: Heat) -> dict[str, list[float | None]]:
    return {row.name: [cell and round(cell.shown, 9) for cell in row.cells] for row in of.rows}


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        (["acc", "acc_norm", "acc_norm_token"], "acc_norm"),
        (["acc", "f1"], "acc"),
        (["exact_match.flexible-extract", "exact_match.strict-match"], "exact_match.strict-match"),
        (["byte_perplexity", "loss", "perplexity"], "perplexity"),
        (["f1", "bleu"], "bleu"),
    ],
)
def test_the_metric_that_stands_for_a_task(metrics: list[str], chosen: str) -> None:
    assert primary(metrics) == chosen


def test_words_and_names_that_are_not_known() -> None:
    assert words_of(["a,b", " b , c"]) == ["a", "b", "c"]
    with pytest.raises(TrainyardError, match="a name is empty"):
        words_of(["a,,b"])
    of = gathered(made_result(RUN, 1, "hellaswag", {"acc": share(0.3, 10)}, limit=10), mmlu(RUN, 1, {"x": 0.1}))
    for word in ("hellaswag", "hellaswag.limit-10"):
        assert only_tasks(of, [word]).labels == ["hellaswag.limit-10"]
    with pytest.raises(Missing, match=r"no result of a task helaswag; nearest: hellaswag; there are: hellaswag, hell"):
        only_tasks(of, ["helaswag"])
    with pytest.raises(Missing, match="no metric acc_norm; nearest: acc; there are: acc"):
        metrics_of(of, ["acc_norm"])
    assert metrics_of(of, ["mmlu.acc"]) == {"mmlu": ["acc"]}


def test_results_that_were_asked_otherwise_have_columns_of_their_own() -> None:
    first = made_result(RUN, 1, "mmlu", {"acc": share(0.3, 100)})
    other = made_result(RUN, 2, "mmlu", {"acc": share(0.5, 100)}, shots=5, version="2")
    of = gathered(first, other, made_result(RUN, 3, "mmlu", {"acc": share(0.4, 100)}))
    columns = columns_of(of, metrics_of(of, []), definitions_of(of.found))
    assert {column.title: [place.step for place in column.values] for column in columns} == {
        "mmlu.acc (a)": [1, 3], "mmlu.acc (b)": [2],
    }  # fmt: skip
    assert [column.best for column in columns] == [Place(RUN, 3), None]
    told = "mmlu (a) and (b) cannot be compared: version 1 and 2; shots 0 and 5"
    assert definitions_of(of.found).notes() == [told]
    content = json.loads(aggregated(columns, places_of(of), tokens_at(of)))
    assert content["results"]["mmlu (a)"]["acc"] == [0.3, None, 0.4]
    drawn = panels(of)
    assert [(curve.run, curve.letter, curve.where) for curve in drawn.panels[0].curves] == [
        (RUN, "a", (1, 3)), (RUN, "b", (2,)),
    ]  # fmt: skip
    assert drawn.notes == (told,)
    assert ">(b) asked otherwise than (a)<" in picture_bytes(draw_curves(drawn), ".svg").decode()
    assert text_panels(drawn, 80)[-2:] == [f"a {RUN} (a)", f"b {RUN} (b)"]


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


def test_the_best_is_never_invalid_and_may_be_the_smallest() -> None:
    loss = [made_result(RUN, step, "wiki", {"loss": Metric(value=value, higher_is_better=False)}) for step, value in
            ((1, 3.0), (2, 2.0), (3, 2.5))]  # fmt: skip
    of = gathered(*loss)
    metrics, definitions = metrics_of(of, []), definitions_of(of.found)
    assert columns_of(of, metrics, definitions)[0].best == Place(RUN, 2)
    marked = replace(of, found=(of.found[0], replace(of.found[1], invalid=True), of.found[2]))
    assert columns_of(marked, metrics, definitions)[0].best == Place(RUN, 3)


def test_numbers_have_about_five_digits() -> None:
    assert [number(each) for each in (0.25, 9.99999, 12.3456, 123.456, 123456.7)] == [
        "0.2500", "10.0000", "12.346", "123.46", "1.2346e+05",
    ]  # fmt: skip


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
    with pytest.raises(Refused, match="tr9a is no base"):
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


def test_small_cells_have_no_numbers() -> None:
    found = heat(gathered(*(mmlu(RUN, step, {"a": 0.25}) for step in range(1, 101))))
    text = picture_bytes(draw_heat(found, [], "steps"), ".svg").decode()
    assert ">+25.0<" not in text
    assert ">mmlu<" in text


def test_curves_over_tokens_leave_out_what_does_not_know_them() -> None:
    known = [made_result(RUN, step, "x", {"acc": share(0.3 + step / 100, 50)}) for step in (1, 2)]
    of = gathered(*known, made_result(RUN, 3, "x", {"acc": share(0.5, 50)}).model_copy(update={"tokens": None}))
    assert panels(of).axis == "steps"
    drawn = panels(of, "tokens")
    assert drawn.panels[0].curves[0].where == (2_000_000, 4_000_000)
    assert drawn.panels[0].chances == (0.25,)
    assert drawn.notes == ("1 checkpoint left out: the number of tokens is not known there; --x steps has all",)
    with pytest.raises(Refused, match="no result knows how many tokens"):
        panels(gathered(*(each.result.model_copy(update={"tokens": None}) for each in of.found)), "tokens")


def test_several_runs_are_drawn_over_tokens() -> None:
    of = gathered(*(made_result(run, 1, "x", {"acc": share(0.3, 50)}) for run in (RUN, "tr9b")))
    drawn = panels(of)
    assert (drawn.axis, [curve.run for curve in drawn.panels[0].curves]) == ("tokens", [RUN, "tr9b"])
    text = picture_bytes(draw_curves(drawn), ".svg").decode()
    for expected in ("tr9b", RUN, "chance 0.25", "x.acc", "tokens", "band: one standard error to either side"):
        assert f">{expected}<" in text, expected


def test_a_loss_has_a_logarithmic_axis() -> None:
    values = {1: 80.0, 2: 30.0, 3: 5.0}
    of = gathered(
        *(made_result(RUN, step, "wiki", {"perplexity": Metric(value=value, higher_is_better=False)}) for step, value in
          values.items()), made_result(RUN, 1, "x", {"acc": share(0.3, 50)}),
    )  # fmt: skip
    drawn = panels(of)
    assert {panel.title: panel.is_logarithmic for panel in drawn.panels} == {"wiki.perplexity": True, "x.acc": False}
    figure = draw_curves(drawn)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    assert ">lower is better<" in picture_bytes(figure, ".svg").decode()
    assert picture_bytes(figure, ".png").startswith(b"\x89PNG")


def test_curves_as_text() -> None:
    values = {(RUN, 1): 0.4, (RUN, 2): 0.5, ("b", 1): 0.5, ("b", 2): 0.6}
    results = [made_result(run, step, "x", {"acc": share(value, 50)}) for (run, step), value in values.items()]
    of = gathered(*results, made_result(RUN, 1, "y", {"acc": share(0.3, 50, None)}))
    lines = text_panels(panels(of, "steps"), 60)
    assert lines[0] == "x.acc over steps; - chance 0.25"
    assert lines[1] == f"   0.6 {'b':>53}".rstrip()
    assert lines[10].startswith("  0.25 -----")
    assert "0.3000 wherever it was measured" in lines
    assert lines[-2:] == [f"a {RUN}", "b b"]
    assert all(len(line) <= 60 for line in lines)


def test_files_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"give it one of \.svg, \.png"):
        check_output(tmp_path / "x.pdf", (".svg", ".png"))
    with pytest.raises(Missing, match="there is no folder"):
        check_output(tmp_path / "nowhere" / "x.svg", (".svg",))
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(Refused, match="is a folder"):
        check_output(tmp_path / "x.svg", (".svg",))


def test_many_parts_are_read_once_each_and_in_order(tmp_path: Path) -> None:
    run = put(tmp_path / RUN, (mmlu(RUN, step, dict.fromkeys(subjects(60), 0.001 * step)) for step in (30, 10, 20)))
    of = gather([run], invalid=False)
    assert [each.step for each in of.found] == [10, 20, 30]
    columns = part_columns(of, metrics_of(of, []), definitions_of(of.found))
    assert [column.part for column in columns] == [None, *subjects(60)]
    assert columns[60].values[Place(RUN, 20)].metric.value == pytest.approx(0.27)
