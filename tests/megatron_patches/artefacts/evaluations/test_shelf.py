"""The shelf of evaluations: what writers leave there, also at once, and where they are killed."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from megatron_patches.artefacts.evaluations import shelf
from megatron_patches.artefacts.evaluations.result import Item, TaskResult, label_of, metrics_of, read_result
from megatron_patches.artefacts.evaluations.sealing import RESULTS, TASKS, labels_in, seal
from megatron_patches.artefacts.evaluations.shelf import (
    Evaluation,
    is_sealed,
    items_of,
    list_evaluations,
    read_evaluation,
    shelve,
)
from megatron_patches.artefacts.manifest import (
    Manifest,
    Status,
    read_manifest,
    verify_files,
    write_manifest,
)
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged, Missing, Refused
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_evaluations import evaluate, make_items, make_result


def only(run: RunFolder) -> Evaluation:
    problems: list[str] = []
    (found,) = list_evaluations(run, problems)
    assert problems == []
    return found


def test_results_of_several_tasks_have_one_manifest(run: RunFolder, checkpoint: Manifest) -> None:
    first = make_result(checkpoint, parts={"anatomy": 0.5})
    evaluate(run.path.parent, first)
    before = only(run).manifest
    folder = evaluate(run.path.parent, make_result(checkpoint, "mmlu", acc=0.3), items=0)
    after = only(run)
    assert after.manifest is not None
    assert before is not None
    assert before.id != after.manifest.id
    assert after.results == {"hellaswag": first, "mmlu": make_result(checkpoint, "mmlu", acc=0.3)}
    assert [file.path for file in after.manifest.files] == ["hellaswag.items.jsonl", "hellaswag.json", "mmlu.json"]
    assert verify_files(after.manifest, folder, hashes=True) == []
    assert after.manifest.parents == [checkpoint.id]
    assert after.manifest.facts[RESULTS] == {
        "hellaswag": {"acc": 0.25}, "hellaswag.anatomy": {"acc": 0.5}, "mmlu": {"acc": 0.3}
    }  # fmt: skip
    assert list(after.manifest.facts[TASKS]) == ["hellaswag", "mmlu"]  # type: ignore[arg-type]
    assert items_of(folder, "hellaswag") == make_items()
    with pytest.raises(Missing):
        items_of(folder, "mmlu")
    assert is_sealed(after)


def test_names_of_metrics(checkpoint: Manifest) -> None:
    result = make_result(checkpoint, label_of("mmlu", 5, 100, None), parts={"anatomy": 0.5}, acc=0.3, acc_norm=0.4)
    values = {name: metric.value for name, metric in metrics_of(result).items()}
    label = "mmlu.5-shot.limit-100"
    assert values == {f"{label}.acc": 0.3, f"{label}.acc_norm": 0.4, f"{label}.anatomy.acc": 0.5}


def test_the_same_again_changes_nothing(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    before = (folder / "manifest.json").read_bytes()
    evaluate(run.path.parent, make_result(checkpoint))
    assert (folder / "manifest.json").read_bytes() == before


def test_a_mark_stays_when_a_task_is_added(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    status = Status(state="invalid", reason="a spike", date="2026-11-02T00:00:00+00:00", cause=checkpoint.id)
    marked = read_manifest(folder / "manifest.json").model_copy(update={"status": status})
    write_manifest(folder / "manifest.json", marked)
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    found = only(run)
    assert found.is_invalid
    assert found.manifest is not None
    assert found.manifest.status == status
    assert set(found.results) == {"hellaswag", "mmlu"}


def test_a_manifest_that_is_rewritten_is_seen_by_catalogues(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    os.utime(folder.parent, ns=(1, 1))
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    assert folder.parent.stat().st_mtime_ns != 1


ROUNDS = 20


def _shelve_rounds(runs: Path, label: str, results: list[TaskResult], barrier: object) -> None:
    for result in results:
        barrier.wait()  # type: ignore[attr-defined]
        evaluate(runs, result.model_copy(update={"label": label, "task": label}))


@pytest.mark.slow
def test_two_writers_of_one_step_at_once(run: RunFolder, tmp_path: Path) -> None:
    results = [make_result(make_checkpoint(tmp_path, step)) for step in range(1, ROUNDS + 1)]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_shelve_rounds, args=(tmp_path, label, results, barrier)) for label in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    problems: list[str] = []
    found = list_evaluations(run, problems)
    assert problems == []
    assert len(found) == ROUNDS
    for each in found:
        assert each.manifest is not None
        assert {file.path for file in each.manifest.files} == {
            "a.items.jsonl", "a.json", "b.items.jsonl", "b.json"
        }  # fmt: skip
        assert verify_files(each.manifest, each.folder, hashes=True) == []


def test_a_file_replaced_while_the_manifest_is_made_makes_it_again(
    run: RunFolder, checkpoint: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names alone would not tell: the other writer's result has the same one."""
    folder = evaluate(run.path.parent, make_result(checkpoint))
    other = make_result(checkpoint, acc=0.5)
    waiting = [other]

    def slow_write(path: Path, manifest: Manifest) -> None:
        if waiting:
            shelf.put_result(folder, "hellaswag", shelf.result_bytes(waiting.pop()), None)
        write_manifest(path, manifest)

    monkeypatch.setattr("megatron_patches.artefacts.evaluations.sealing.write_manifest", slow_write)
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    found = only(run)
    assert is_sealed(found)
    assert found.manifest is not None
    assert verify_files(found.manifest, folder, hashes=True) == []
    assert found.results["hellaswag"] == other


class Killed(BaseException):
    """In place of SIGKILL: no handler of the code under test may see it."""


@pytest.mark.parametrize("at", ["t.items.jsonl", "t.json", "manifest.json"])
@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_a_writer_that_is_killed_leaves_no_result_beside_other_items(
    run: RunFolder, checkpoint: Manifest, monkeypatch: pytest.MonkeyPatch, at: str, before: bool
) -> None:
    """Before it writes any of its files; another task of the step was there already."""
    folder = evaluate(run.path.parent, make_result(checkpoint, "other"))
    if before:
        evaluate(run.path.parent, make_result(checkpoint, "t", acc=0.1), items=1)

    def killed(path: Path, content: bytes) -> None:
        if path.name == at:
            raise Killed
        path.write_bytes(content)

    for module in ("evaluations.shelf", "manifest"):
        monkeypatch.setattr(f"megatron_patches.artefacts.{module}.write_atomically", killed)
    with pytest.raises(Killed):
        evaluate(run.path.parent, make_result(checkpoint, "t", acc=0.2), items=2)
    monkeypatch.undo()
    found = only(run)
    assert "other" in found.results
    assert is_sealed(found) == (not before and at != "manifest.json")  # items alone are nothing that it must name
    if at == "manifest.json":
        assert found.results["t"].metrics["acc"].value == 0.2
        assert len(items_of(folder, "t")) == 2
    else:
        assert "t" not in found.results
    evaluate(run.path.parent, make_result(checkpoint, "last"))
    sealed = only(run)
    assert is_sealed(sealed)
    assert sealed.manifest is not None
    assert verify_files(sealed.manifest, folder, hashes=True) == []


def test_a_manifest_that_names_a_file_as_it_was_is_no_seal(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    path = folder / "hellaswag.json"
    path.write_text(path.read_text().replace("0.25", "0.52"))  # of the same size
    assert not is_sealed(only(run))
    seal(folder)
    found = only(run)
    assert is_sealed(found)
    assert found.manifest is not None
    assert found.manifest.facts[RESULTS] == {"hellaswag": {"acc": 0.52}}


def test_an_evaluation_of_a_checkpoint_that_was_saved_again(run: RunFolder, checkpoint: Manifest) -> None:
    evaluate(run.path.parent, make_result(checkpoint))
    again = make_checkpoint(run.path.parent, 100, samples=801)
    assert again.id != checkpoint.id
    folder = evaluate(run.path.parent, make_result(again, "mmlu"))
    assert set(only(run).results) == {"mmlu"}
    former = read_evaluation(folder.with_name(f"{folder.name}.replaced-1"), [])
    assert set(former.results) == {"hellaswag"}
    assert former.step == 100


def test_an_unsealed_evaluation_of_another_checkpoint_makes_room_too(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    (folder / "manifest.json").unlink()
    evaluate(run.path.parent, make_result(make_checkpoint(run.path.parent, 100, samples=801), "mmlu"))
    assert set(only(run).results) == {"mmlu"}


def test_weights_of_a_checkpoint_are_the_same_checkpoint(run: RunFolder, checkpoint: Manifest) -> None:
    evaluate(run.path.parent, make_result(checkpoint))
    of_weights = make_result(checkpoint, "mmlu").model_copy(update={"checkpoint": "e" * 64})
    shelve(run, of_weights, [], [checkpoint.id, "e" * 64])
    found = only(run)
    assert found.manifest is not None
    assert found.manifest.parents == [checkpoint.id, "e" * 64]


def test_the_way_of_a_checkpoint_outlives_it(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    origin = read_manifest(folder / "manifest.json").facts["origin"]
    assert origin == {"id": checkpoint.id, "run": RUN, "step": 100, "launch": "0001"}
    (run.checkpoints / "step-0000000100" / "manifest.json").unlink()
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    assert read_manifest(folder / "manifest.json").facts["origin"] == origin


@pytest.mark.parametrize("label", ["../x", "manifest", "", "a/b", "x" * 201, "x.items"])
def test_a_label_that_names_no_file_is_refused(run: RunFolder, checkpoint: Manifest, label: str) -> None:
    result = make_result(checkpoint).model_copy(update={"label": label})
    with pytest.raises(Refused, match="cannot name a result's file"):
        shelve(run, result, [], [checkpoint.id])
    assert not (run.path / "evals").exists()


def test_a_damaged_result_hides_no_other(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    (folder / "mmlu.json").write_text("{")
    problems: list[str] = []
    (found,) = list_evaluations(run, problems)
    assert set(found.results) == {"hellaswag"}
    assert len(problems) == 1
    assert "mmlu.json" in problems[0]
    with pytest.raises(Damaged, match=r"mmlu\.json"):
        evaluate(run.path.parent, make_result(checkpoint, "arithmetic"))
    assert "arithmetic" in labels_in(folder), "what was computed is kept all the same"
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    assert is_sealed(only(run))


def test_a_damaged_manifest_is_named_and_hides_no_result(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    content = json.loads((folder / "manifest.json").read_text())
    content["facts"]["step"] = 7
    (folder / "manifest.json").write_text(json.dumps(content))
    problems: list[str] = []
    (found,) = list_evaluations(run, problems)
    assert found.manifest is None
    assert set(found.results) == {"hellaswag"}
    assert "changed after it was written" in problems[0]


def test_a_result_of_another_step_is_named(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    other = evaluate(run.path.parent, make_result(make_checkpoint(run.path.parent, 200), "mmlu"))
    (other / "mmlu.json").rename(folder / "mmlu.json")
    problems: list[str] = []
    list_evaluations(run, problems)
    assert "is of step 200" in problems[0]
    with pytest.raises(Damaged, match="is of step 200"):
        seal(folder)


def test_what_is_no_evaluation_is_not_listed(run: RunFolder, checkpoint: Manifest) -> None:
    evaluate(run.path.parent, make_result(checkpoint))
    for name in (".states", "step-0000000200.replaced-1", "lambada", "step-0000000300.pulling", "weights-0000000400"):
        (run.path / "evals" / name).mkdir()
    (run.path / "evals" / "step-0000000500").write_text("no folder")
    assert only(run).step == 100


def test_a_link_in_place_of_the_folder(run: RunFolder, checkpoint: Manifest, tmp_path: Path) -> None:
    (run.path / "evals").mkdir()
    (run.path / "evals" / "step-0000000100").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused, match="is no folder"):
        evaluate(run.path.parent, make_result(checkpoint))
    assert not (tmp_path / "nowhere").exists()


def test_a_link_in_place_of_a_result_is_replaced_and_not_followed(
    run: RunFolder, checkpoint: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "mine.json").write_text("mine")
    folder = evaluate(run.path.parent, make_result(checkpoint))
    for name in ("mmlu.json", "mmlu.items.jsonl", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "mine.json")
    (folder / "manifest.json").unlink()
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    assert (tmp_path / "mine.json").read_text() == "mine"
    assert not (folder / "mmlu.json").is_symlink()


def test_items_that_end_in_half_a_line(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    path = folder / "hellaswag.items.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Damaged, match="line 3"):
        items_of(folder, "hellaswag")
    path.write_bytes(b'{"id": 3, "metrics": {}}\n')
    with pytest.raises(Damaged, match="line 1"):
        items_of(folder, "hellaswag")


def test_texts_of_items_come_back(run: RunFolder, checkpoint: Manifest) -> None:
    items = [Item(id="a", part="p", cluster="c", metrics={"acc": 1.0}, answer="line\nbreak \u2028 ü", target="#### 4")]
    folder = shelve(run, make_result(checkpoint), items, [checkpoint.id])
    assert items_of(folder, "hellaswag") == items


def test_a_result_bears_its_labels_name(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    (folder / "hellaswag.json").rename(folder / "mmlu.json")
    with pytest.raises(Damaged, match="give the file its own name back"):
        read_result(folder / "mmlu.json")
