"""Results of evaluations as rows, columns and curves, without a command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.descent import descent_of_launch
from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.artefacts.evaluations.shelf import shelve
from megatron_patches.artefacts.manifest import build_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing, Refused, TrainyardError
from tests.small_artefacts import make_checkpoint
from tests.tools.shelved_results import gathered, made_result, mmlu, put, share, subjects
from tools.evaluation_views.aggregated import aggregated
from tools.evaluation_views.choice import metrics_of, only_tasks, words_of
from tools.evaluation_views.columns import Place, columns_of, part_columns, places_of, tokens_at
from tools.evaluation_views.curve_picture import draw_curves
from tools.evaluation_views.curve_text import text_panels
from tools.evaluation_views.curves import Panels, panels_of
from tools.evaluation_views.definitions import definitions_of
from tools.evaluation_views.gathered import Gathered, gather
from tools.evaluation_views.outputs import check_output, picture_bytes
from tools.evaluation_views.table import number

RUN = "tr9a-4M-small"


def panels(of: Gathered, axis: str | None = None) -> Panels:
    chosen = None if axis is None else "tokens" if axis == "tokens" else "steps"
    return panels_of(of, metrics_of(of, []), definitions_of(of.found), chosen)


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
    assert [column.best for column in columns] == [{Place(RUN, 3)}, set()]
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


def test_the_best_is_never_invalid_and_may_be_the_smallest() -> None:
    loss = [made_result(RUN, step, "wiki", {"loss": Metric(value=value, higher_is_better=False)}) for step, value in
            ((1, 3.0), (2, 2.0), (3, 2.5))]  # fmt: skip
    of = gathered(*loss)
    metrics, definitions = metrics_of(of, []), definitions_of(of.found)
    assert columns_of(of, metrics, definitions)[0].best == {Place(RUN, 2)}
    marked = replace(of, found=(of.found[0], replace(of.found[1], invalid=True), of.found[2]))
    assert columns_of(marked, metrics, definitions)[0].best == {Place(RUN, 3)}


def test_equal_values_are_best_together_or_none_is() -> None:
    def best(*values: float) -> set[int]:
        of = gathered(*(made_result(RUN, step, "x", {"acc": share(value, 100)}) for step, value in enumerate(values)))
        return {place.step for place in columns_of(of, metrics_of(of, []), definitions_of(of.found))[0].best}

    assert best(0.3, 0.2, 0.3) == {0, 2}
    assert best(0.3, 0.3) == set()


def test_numbers_have_about_five_digits() -> None:
    assert [number(each) for each in (0.25, -0.00001, 9.99999, 12.3456, 123.456, 123456.7)] == [
        "0.2500", "0.0000", "10.0000", "12.346", "123.46", "1.2346e+05",
    ]  # fmt: skip


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


def test_what_a_rollback_left_behind_is_left_out_and_told(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "tr0a-4M-stdlib")
    of_run = build_manifest("run", [], {"run": run.name})
    run.path.mkdir()
    write_manifest(run.manifest, of_run)
    facts = descent_of_launch(of_run.id, 1, 0, None)
    for launch, beginning in ((1, Beginning(1, 0, None, False)), (2, Beginning(2, 10, None, True))):
        (run.launches / f"{launch:04d}").mkdir(parents=True)
        record_beginning(run.launches / f"{launch:04d}", beginning)
    for step in (10, 20):
        checkpoint = make_checkpoint(tmp_path, step, run.name, **facts)
        result = made_result(run.name, step, "x", {"acc": share(0.3, 50)}).model_copy(
            update={"checkpoint": checkpoint.id}
        )
        shelve(run, result, (), [checkpoint.id])
    of = gather([run], invalid=False)
    assert [each.step for each in of.found] == [10]
    assert of.notes == (
        f"{run.name}: evaluations of step 20 are left out: a rollback or a later launch left their checkpoints behind",
    )
    (run.launches / "0002" / "began.json").write_text("{")
    of = gather([run], invalid=False)
    assert [each.step for each in of.found] == [10, 20]
    assert "evaluations that were left behind are shown too" in of.problems[0]
