"""Checkpoints found, shown, promoted and marked by their evaluations."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_patches.artefacts.annotations import read_standing
from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.removal import keep_manifest
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import Manifest, build_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_evaluations import evaluate, make_result
from tests.tools.commands.test_inventory_lineage import launched
from tools.commands.inventory import command_line as inventory
from tools.commands.runs.rollback_target import candidates, choose

STEPS = (100, 200, 300)
pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture(autouse=True)
def only_these_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading those under train/ takes longer than all that is tried here, and so does waiting for the disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("tools.run_views.views.scan_published", lambda checkout: ([], []))
    monkeypatch.setattr("tools.run_views.views.Inventory.files", {})


@pytest.fixture
def runs(places: Path) -> Path:
    return places / "runs"


@pytest.fixture
def evaluated(runs: Path) -> dict[int, Manifest]:
    """Three checkpoints of no launch, each with its own accuracy; no one comes from another."""
    found = {step: make_checkpoint(runs, step) for step in STEPS}
    for step, manifest in found.items():
        evaluate(runs, make_result(manifest, "mmlu", parts={"anatomy": step / 500}, acc=step / 1000))
    return found


def call(*arguments: str) -> str:
    done = CliRunner().invoke(inventory.app, list(arguments), catch_exceptions=True)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(inventory.app, list(arguments), catch_exceptions=True)
    assert isinstance(done.exception, TrainyardError), done.output
    return str(done.exception)


def names(*arguments: str) -> list[str]:
    done = CliRunner().invoke(inventory.app, ["find", *arguments, "--json"], catch_exceptions=False)
    return [each["name"] for each in json.loads(done.stdout)["artefacts"]]


def shown(what: str) -> Any:
    return json.loads(call("show", what, "--json"))


def of(*steps: int) -> list[str]:
    return [f"{RUN}@{step}" for step in steps]


def folder_of(runs: Path, step: int) -> Path:
    return RunFolder(runs / RUN).checkpoints / checkpoint_name(step)


def leave_weights(runs: Path, step: int, manifest: Manifest) -> None:
    """The full checkpoint goes, its weights stay."""
    alone = weights_of(manifest)
    folder = folder_of(runs, step).with_name(checkpoint_name(step, "weights"))
    folder.mkdir()
    for file in alone.files:
        shutil.copy(folder_of(runs, step) / file.path, folder / file.path)
    write_manifest(folder / "manifest.json", alone)
    shutil.rmtree(folder_of(runs, step))


def test_checkpoints_are_found_by_their_evaluations(evaluated: dict[int, Manifest]) -> None:
    assert names("--metric", "mmlu.acc>=0.2") == of(200, 300)
    assert names("--metric", "mmlu.anatomy.acc<0.3") == of(100)
    assert names("--metric", "mmlu.acc>0.1", "--metric", "mmlu.anatomy.acc<0.5") == of(200)
    assert names("--metric", "mmlu.acc>0.2", "--kind", "evaluation") == [f"{RUN}/evals/step-0000000300"]
    assert names("--metric", "mmlu.anatomy.acc>0.5", "--kind", "evaluation") == [f"{RUN}/evals/step-0000000300"]
    found = json.loads(call("find", "--metric", "mmlu.anatomy.acc>0.5", "--json"))["artefacts"]
    assert [each["metrics"] for each in found] == [{"mmlu.anatomy.acc": 0.6}], "with the number that was asked for"


def test_whole_lines_for_people(evaluated: dict[int, Manifest]) -> None:
    lines = call("find", "--metric", "mmlu.acc>0.2").splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:2] == [f"{RUN}@300", "checkpoint"]
    assert "mmlu.acc 0.3" in lines[1]


def test_a_task_that_is_added_is_found_at_once(runs: Path, evaluated: dict[int, Manifest]) -> None:
    assert names("--metric", "hellaswag.acc>0") == []
    evaluate(runs, make_result(evaluated[100]))
    assert names("--metric", "hellaswag.acc>0") == of(100)


def test_the_checkpoint_is_found_where_its_weights_alone_are_left_or_none_of_it(
    runs: Path, evaluated: dict[int, Manifest]
) -> None:
    leave_weights(runs, 200, evaluated[200])
    keep_manifest(folder_of(runs, 300))
    shutil.rmtree(folder_of(runs, 300))
    assert names("--metric", "mmlu.acc>0.1") == [f"{RUN}@200/weights", f"{RUN}@300"]
    assert [each["name"] for each in shown(f"{RUN}@200/weights")["evaluations"]] == [f"{RUN}/evals/step-0000000200"]
    shutil.rmtree(folder_of(runs, 100))
    assert names("--metric", "mmlu.acc<0.2") == [f"{RUN}/evals/step-0000000100"], "nothing else is known of it"


def test_evaluated_weights_and_their_full_checkpoint(runs: Path) -> None:
    full = make_checkpoint(runs, 100)
    alone = weights_of(full)
    folder = folder_of(runs, 100).with_name(checkpoint_name(100, "weights"))
    folder.mkdir()
    for file in alone.files:
        shutil.copy(folder_of(runs, 100) / file.path, folder / file.path)
    write_manifest(folder / "manifest.json", alone)
    make_checkpoint(runs, 200, parents=(full.id,))
    evaluate(runs, make_result(alone))
    assert sorted(names("--metric", "hellaswag.acc>0")) == [f"{RUN}@100", f"{RUN}@100/weights"]
    assert len(shown(f"{RUN}@100")["evaluations"]) == 1
    assert shown(f"{RUN}@200")["evaluations"] == []


def test_metrics_of_an_invalid_evaluation_do_not_count(evaluated: dict[int, Manifest]) -> None:
    call("invalidate", f"{RUN}/evals/step-0000000300", "--because", "another data set")
    assert names("--metric", "mmlu.acc>0.1") == of(200)
    assert "INVALID: another data set" in call("show", f"{RUN}@300")
    call("revalidate", f"{RUN}/evals/step-0000000300")
    assert names("--metric", "mmlu.acc>0.1") == of(200, 300)


def test_near_names_are_offered(evaluated: dict[int, Manifest]) -> None:
    assert "no artefact has a metric mmlu.acc_norm; nearest: mmlu.acc" in call("find", "--metric", "mmlu.acc_norm>0")
    assert "no artefact has" not in call("find", "--metric", "mmlu.acc>0.9")


def test_an_evaluation_goes_with_its_checkpoint(evaluated: dict[int, Manifest]) -> None:
    said = call("invalidate", f"{RUN}@200", "--because", "a spike")
    assert f"invalid: {RUN}/evals/step-0000000200 (evaluation" in said
    states = {each["name"]: each["state"] for each in json.loads(call("find", "--run", RUN, "--json"))["artefacts"]}
    assert {name for name, state in states.items() if state == "invalid"} == {
        f"{RUN}@200", f"{RUN}/evals/step-0000000200"
    }  # fmt: skip
    assert names("--metric", "mmlu.acc>0.2") == of(300)
    call("revalidate", f"{RUN}@200")
    assert names("--status", "invalid") == []


def test_lineage_of_an_evaluation_goes_round_checkpoints_that_are_gone(runs: Path) -> None:
    first, second, third = launched(runs, 1, None, range(10, 31, 10))
    for manifest in (first, second, third):
        evaluate(runs, make_result(manifest))
    for step in (20, 30):
        shutil.rmtree(folder_of(runs, step))
    gone = [f"{RUN}/evals/step-{step:010d}" for step in (20, 30)]
    assert names("--metric", "hellaswag.acc>0") == [f"{RUN}@10", *gone], "its nearest ancestor is not its checkpoint"
    said = call("invalidate", f"{RUN}@10", "--because", "a spike")
    for step in (10, 20, 30):
        assert f"invalid: {RUN}/evals/step-{step:010d}" in said
    call("revalidate", f"{RUN}@10")
    assert names("--status", "invalid") == []


def test_an_evaluation_of_what_was_saved_again_is_known_beside_the_new_one(
    runs: Path, evaluated: dict[int, Manifest]
) -> None:
    folder = folder_of(runs, 300)
    folder.rename(folder.with_name(f"{folder.name}.replaced-1"))
    again = make_checkpoint(runs, 300, samples=2401)
    evaluate(runs, make_result(again, "mmlu", acc=0.9))
    assert names("--metric", "mmlu.acc>0.2") == [f"{RUN}@300/replaced-1", f"{RUN}@300"]
    assert names("--metric", "mmlu.acc>0.8") == of(300)


def test_what_people_read_of_a_checkpoint(evaluated: dict[int, Manifest], runs: Path) -> None:
    evaluate(runs, make_result(evaluated[100], "gsm8k.5-shot.limit-50").model_copy(update={"limit": 50, "shots": 5}))
    lines = call("show", f"{RUN}@100").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"evaluation {RUN}/evals"))
    assert lines[first + 1 : first + 5] == [
        "  gsm8k.5-shot.limit-50: acc 0.25 ± 0.03",
        "    5-shot, 200 examples (limit 50), through export, version 1, 2026-11-01",
        "  mmlu: acc 0.1 ± 0.03",
        "    0-shot, 200 examples in 1 part, through export, version 1, 2026-11-01",
    ]
    assert any("|-> 3 evaluations: @100, @200, @300" in line for line in lines)
    loss = Metric(value=3.0, higher_is_better=False)
    evaluate(
        runs, make_result(evaluated[100], "validation").model_copy(update={"metrics": {"loss": loss}, "parts": {}})
    )
    assert "    200 tokens, through export, version 1, 2026-11-01" in call("show", f"{RUN}@100").splitlines()
    assert f"{RUN}@100" in call("show", f"{RUN}/evals/step-0000000100")
    facts = shown(f"{RUN}@100")["evaluations"][0]["results"]["mmlu"]
    assert facts["metrics"]["acc"] == {"value": 0.1, "standard_error": 0.03, "higher_is_better": True}


def test_many_evaluations_share_a_line(runs: Path) -> None:
    for step in range(1, 13):
        evaluate(runs, make_result(make_checkpoint(runs, step)), items=0)
    lines = [line for line in call("show", RUN).splitlines() if "evaluations:" in line]
    assert lines == ["  |-> 12 evaluations: @1, @2, @3, @4, ... 4 more ..., @9, @10, @11, @12"]


def test_gold_takes_its_value_from_the_evaluation(runs: Path, evaluated: dict[int, Manifest]) -> None:
    said = call("gold", f"{RUN}@300", "--because", "the best", "--metric", "mmlu.anatomy.acc")
    assert "is gold by mmlu.anatomy.acc 0.6, as it was evaluated" in said
    (promotion,) = read_standing(runs / RUN).gold.values()
    assert (promotion.metric, promotion.value) == ("mmlu.anatomy.acc", 0.6)
    assert "mmlu.anatomy.acc 0.6" in call("list", "tr900a")


@pytest.mark.parametrize(
    ("given", "told"), [("0.3", False), ("0.30", False), ("3e-1", False), ("0.29", True), ("0.301", True), ("1", True)]
)
def test_a_value_beside_the_evaluations_own_is_told(
    runs: Path, evaluated: dict[int, Manifest], given: str, told: bool
) -> None:
    said = call("gold", f"{RUN}@300", "--because", "the best", "--metric", f"mmlu.acc={given}")
    assert ("on record is 0.3" in said) == told
    (promotion,) = read_standing(runs / RUN).gold.values()
    assert promotion.value == float(given)


def test_gold_by_what_was_not_measured(runs: Path, evaluated: dict[int, Manifest]) -> None:
    said = refused("gold", f"{RUN}@300", "--because", "the best", "--metric", "mmlu.ac")
    assert "nearest: mmlu.acc" in said
    assert "--metric mmlu.ac=VALUE" in said
    assert read_standing(runs / RUN).gold == {}
    call("invalidate", f"{RUN}/evals/step-0000000300", "--because", "other data")
    assert "has no metric mmlu.acc" in refused("gold", f"{RUN}@300", "--because", "x", "--metric", "mmlu.acc")


def test_verify_reads_evaluations(runs: Path, evaluated: dict[int, Manifest]) -> None:
    assert "6 of 6 artefacts whole" in call("verify", RUN)
    path = runs / RUN / "evals" / "step-0000000100" / "mmlu.items.jsonl"
    path.write_bytes(b"x" * path.stat().st_size)
    done = CliRunner().invoke(inventory.app, ["verify", RUN])
    assert done.exit_code == 1
    assert "mmlu.items.jsonl has sha256" in done.output


def test_the_best_by_an_evaluation(evaluated: dict[int, Manifest], runs: Path) -> None:
    assert shown(f"{RUN}@best:mmlu.acc")["name"] == f"{RUN}@300"
    assert "nearest: mmlu.acc" in refused("show", f"{RUN}@best:mmlu.ac")


def test_a_rollback_to_the_best_by_an_evaluation(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.commands.runs.rollback_target.fact_problems", lambda *_: [])  # small ones state little
    run = RunFolder(runs / RUN)
    saved = launched(runs, 1, None, range(10, 31, 10))
    for manifest, accuracy in zip(saved, (0.1, 0.3, 0.2), strict=True):
        evaluate(runs, make_result(manifest, acc=accuracy))
    assert choose(run, candidates(run, None), "best:hellaswag.acc").step == 20
    shutil.rmtree(folder_of(runs, 20))
    assert choose(run, candidates(run, None), "best:hellaswag.acc").step == 30


def test_an_evaluation_that_states_no_tasks_has_its_metrics_as_they_are(runs: Path) -> None:
    manifest = make_checkpoint(runs, 100)
    folder = runs / RUN / "evals" / "by-hand"
    folder.mkdir(parents=True)
    facts = {"run": RUN, "results": {"lambada": {"acc": 0.5}}}
    write_manifest(folder / "manifest.json", build_manifest("evaluation", [], facts, [manifest.id]))  # type: ignore[arg-type]
    assert names("--metric", "lambada.acc>0.4", "--kind", "evaluation") == [f"{RUN}/evals/by-hand"]
    assert "lambada.acc 0.5" in call("show", f"{RUN}/evals/by-hand")


@pytest.mark.parametrize("condition", ["mmlu.acc>=.2", "mmlu.acc >= +0.2", "mmlu.acc>=2e-1"])
def test_forms_of_a_number(evaluated: dict[int, Manifest], condition: str) -> None:
    assert names("--metric", condition) == of(200, 300)


@pytest.mark.parametrize("condition", ["mmlu.acc==0.2", "mmlu.acc!=0.2", "mmlu.acc=>0.2", "mmlu.acc>", ">0.2", "=0.2"])
def test_signs_that_there_are_not_belong_to_no_name(evaluated: dict[int, Manifest], condition: str) -> None:
    assert "give a name, a sign and a number" in refused("find", "--metric", condition)


def test_names_of_metrics_that_need_escapes(runs: Path) -> None:
    evaluate(runs, make_result(make_checkpoint(runs, 100), metrics={"größe": 0.5, "a\\b": 0.5, "exact_match,x=y": 0.5}))
    for name in ("größe", "a\\b", "exact_match,x=y"):
        assert names("--metric", f"hellaswag.{name}>=0.5") == of(100), name


def test_a_condition_on_a_metric_looks_into_all_that_there_is_once(
    evaluated: dict[int, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    rows = Catalogue.rows

    def heard(self: Catalogue, query: str, *values: Any) -> list[tuple[Any, ...]]:
        asked.append(query)
        return rows(self, query, *values)

    monkeypatch.setattr(Catalogue, "rows", heard)
    assert names("--metric", "mmlu.acc>0.1", "--limit", "1") == of(200)
    assert len([query for query in asked if "json_extract" in query and "WITH measured" not in query]) == 1
