"""Evaluations brought to other places and back, while tasks are added at both."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from megatron_patches.artefacts.evaluations.shelf import is_sealed, list_evaluations
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.manifest import Manifest, Status, read_manifest, verify_files, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tests.small_evaluations import evaluate, make_result
from tools.commands.inventory import command_line as inventory
from tools.commands.sync_to_hub import command_line as sync_to_hub

pytestmark = pytest.mark.usefixtures("places")
STEP = "evals/step-0000000100"


@pytest.fixture
def bucket(places: Path) -> str:
    return f"file://{places}/bucket"


@pytest.fixture
def checkpoint(places: Path) -> Manifest:
    """Evaluated on one task."""
    manifest = make_checkpoint(places / "runs", 100)
    evaluate(places / "runs", make_result(manifest))
    return manifest


def sync(*arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    """What happened to each artefact."""
    done = CliRunner().invoke(sync_to_hub.app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return {line["name"]: line for line in json.loads(done.stdout)}


def push(bucket: str, *more: str, code: int = 0) -> dict[str, str]:
    return sync("push", RUN, "--what", "evals", "--to", bucket, *more, code=code).get(STEP, {})


def pull(bucket: str, into: Path, *more: str, code: int = 0) -> dict[str, str]:
    arguments = ("pull", RUN, "--what", "evals", "--from", bucket, "--into", str(into), *more)
    return sync(*arguments, code=code).get(STEP, {})


def labels(root: Path) -> set[str]:
    """Of the step's results, all of which are sealed and whole."""
    problems: list[str] = []
    (found,) = list_evaluations(RunFolder(root / RUN), problems)
    assert problems == []
    assert is_sealed(found)
    assert found.manifest is not None
    assert verify_files(found.manifest, found.folder, hashes=True) == []
    return set(found.results)


def test_a_task_that_was_added_goes_there_too(places: Path, bucket: str, checkpoint: Manifest) -> None:
    assert push(bucket)["word"] == "sent"
    assert push(bucket)["word"] == "present"
    folder = evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    assert push(bucket)["word"] == "sent"
    assert push(bucket)["word"] == "present"
    assert labels(places / "bucket") == {"hellaswag", "mmlu"}
    (copy,) = read_copies(places / "runs" / RUN)
    assert (copy.name, copy.id, copy.whole) == (STEP, read_manifest(folder / "manifest.json").id, True)


def test_a_result_that_was_replaced_here_is_replaced_there(places: Path, bucket: str, checkpoint: Manifest) -> None:
    push(bucket)
    evaluate(places / "runs", make_result(checkpoint, acc=0.5))
    assert push(bucket)["word"] == "sent"
    (found,) = list_evaluations(RunFolder(places / "bucket" / RUN), [])
    assert found.results["hellaswag"].metrics["acc"].value == 0.5


@pytest.fixture
def two_machines(places: Path, bucket: str, checkpoint: Manifest) -> Path:
    """Another root of runs, whose machine has evaluated a task more, and pushed it."""
    push(bucket)
    other = places / "other"
    make_checkpoint(other, 100)
    assert pull(bucket, other)["word"] == "fetched"
    evaluate(other, make_result(checkpoint, "arithmetic"))
    return other


def push_from(root: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> dict[str, str]:
    with monkeypatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(root))
        return push(bucket, code=code)


def test_two_machines_that_evaluate_different_tasks(
    places: Path, bucket: str, checkpoint: Manifest, two_machines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push_from(two_machines, bucket, monkeypatch)["word"] == "sent"
    evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    refused = push(bucket, code=1)
    assert refused["word"] == "failed"
    assert "has results that are not here (arithmetic): bring them here first" in refused["problem"]
    assert labels(places / "bucket") == {"hellaswag", "arithmetic"}

    assert pull(bucket, places / "runs")["word"] == "fetched"
    assert labels(places / "runs") == {"hellaswag", "arithmetic", "mmlu"}
    assert push(bucket)["word"] == "sent"
    assert pull(bucket, two_machines)["word"] == "fetched"
    assert labels(two_machines) == labels(places / "bucket") == {"hellaswag", "arithmetic", "mmlu"}
    ids = {read_manifest(root / RUN / STEP / "manifest.json").id for root in (places / "runs", two_machines)}
    assert len(ids) == 1, "both have the same evaluation now"
    assert pull(bucket, two_machines)["word"] == "present"


def test_two_results_of_one_task_are_nobodys_to_choose(
    places: Path, bucket: str, checkpoint: Manifest, two_machines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(two_machines, make_result(checkpoint, acc=0.75))
    assert push_from(two_machines, bucket, monkeypatch, code=1)["word"] == "failed", "it was not sent from there"
    evaluate(places / "runs", make_result(checkpoint, acc=0.5))
    push(bucket)
    before = {path: path.read_bytes() for path in sorted((two_machines / RUN / "evals").rglob("*")) if path.is_file()}
    refused = pull(bucket, two_machines, code=1)
    assert "has another result of hellaswag" in refused["problem"]
    assert "remove hellaswag.json here, then pull" in refused["problem"]
    assert {path: path.read_bytes() for path in before} == before
    (two_machines / RUN / STEP / "hellaswag.json").unlink()
    assert pull(bucket, two_machines)["word"] == "fetched"
    (found,) = list_evaluations(RunFolder(two_machines / RUN), [])
    assert {label: each.metrics["acc"].value for label, each in found.results.items()} == {
        "arithmetic": 0.25, "hellaswag": 0.5
    }  # fmt: skip


def test_an_evaluation_of_another_checkpoint_of_the_step(places: Path, bucket: str, checkpoint: Manifest) -> None:
    push(bucket)
    evaluate(places / "runs", make_result(make_checkpoint(places / "runs", 100, samples=801)))
    assert "of another checkpoint; --replace" in push(bucket, code=1)["problem"]
    assert "evaluation of another checkpoint of this step" in pull(bucket, places / "runs", code=1)["problem"]
    assert push(bucket, "--replace")["word"] == "sent"
    assert pull(bucket, places / "runs")["word"] == "present"


def test_what_is_packed_comes_back(places: Path, bucket: str, checkpoint: Manifest) -> None:
    evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    push(bucket, "--tar-below", "1M")
    evaluate(places / "runs", make_result(checkpoint, "arithmetic"))
    push(bucket, "--tar-below", "1M")
    other = places / "other"
    evaluate(other, make_result(make_checkpoint(other, 100), "own"))
    assert pull(bucket, other)["word"] == "fetched"
    assert labels(other) == {"hellaswag", "mmlu", "arithmetic", "own"}
    assert not list((other / RUN / "evals").glob("*.pulling"))


def test_a_mark_that_came_later_travels_with_the_results(places: Path, bucket: str, checkpoint: Manifest) -> None:
    push(bucket)
    path = places / "bucket" / RUN / STEP / "manifest.json"
    status = Status(state="invalid", reason="a spike", date="2026-11-02T00:00:00+00:00")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    assert push(bucket)["word"] == "sent"
    assert read_manifest(path).status == status
    assert pull(bucket, places / "runs", code=1)["word"] == "failed"
    assert pull(bucket, places / "runs", "--allow-invalid")["word"] == "status renewed"
    assert read_manifest(places / "runs" / RUN / STEP / "manifest.json").status == status


def test_one_that_grew_and_was_marked_since_is_marked_there(places: Path, bucket: str, checkpoint: Manifest) -> None:
    push(bucket)
    folder = evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    status = Status(state="invalid", reason="a spike", date="2026-11-02T00:00:00+00:00")
    manifest = read_manifest(folder / "manifest.json").model_copy(update={"status": status})
    write_manifest(folder / "manifest.json", manifest)
    assert push(bucket)["word"] == "status renewed"
    assert read_manifest(places / "bucket" / RUN / STEP / "manifest.json").status == status


def test_states_and_what_is_not_whole_stay_here(places: Path, bucket: str, checkpoint: Manifest) -> None:
    evals = places / "runs" / RUN / "evals"
    for name in (".states/running.json", "step-0000000300/mmlu.json", "step-0000000100.pulling/a.json", "notes/a.txt"):
        (evals / name).parent.mkdir(parents=True, exist_ok=True)
        (evals / name).write_text("{}")
    evaluate(places / "runs", make_result(make_checkpoint(places / "runs", 100, samples=801), "mmlu"))
    make_artefact(places / "runs" / RUN / "exports" / "hub", "export", {"a": b"1"}, {"run": RUN})
    sync("push", RUN, "--what", "evals,exports", "--to", bucket)
    found = sorted(
        path.relative_to(places / "bucket" / RUN).as_posix()
        for path in (places / "bucket").rglob("*")
        if path.is_file()
    )
    names = ("manifest.json", "mmlu.items.jsonl", "mmlu.json")
    assert found == [
        "evals/index.json", "evals/notes/a.txt", *(f"{STEP}/{name}" for name in names),
        "exports/hub/a", "exports/hub/manifest.json",
    ]  # fmt: skip


def test_what_a_killed_writer_left_is_sealed_before_it_goes(places: Path, bucket: str, checkpoint: Manifest) -> None:
    folder = evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    (folder / "manifest.json").unlink()
    assert push(bucket)["word"] == "sent"
    assert labels(places / "bucket") == {"hellaswag", "mmlu"}


def test_what_is_no_result_there_is_not_taken(places: Path, bucket: str, checkpoint: Manifest) -> None:
    push(bucket)
    forged = places / "bucket" / RUN / STEP
    make_artefact(forged, "evaluation", {"mmlu.json": b"{}"}, {}, (checkpoint.id,))
    refused = pull(bucket, places / "runs", code=1)
    assert "is no result of an evaluation" in refused["problem"]
    assert labels(places / "runs") == {"hellaswag"}


def test_an_evaluation_of_a_checkpoint_that_is_invalid_here_is_so_too(
    places: Path, bucket: str, checkpoint: Manifest
) -> None:
    push(bucket)
    other = places / "other"
    there = make_checkpoint(other, 100)
    status = Status(state="invalid", reason="a spike", date="2026-11-02T00:00:00+00:00", cause=there.id)
    path = other / RUN / "checkpoints" / "step-0000000100" / "manifest.json"
    write_manifest(path, there.model_copy(update={"status": status}))
    assert pull(bucket, other)["word"] == "fetched"
    found = read_manifest(other / RUN / STEP / "manifest.json").status
    assert (found.state, found.cause) == ("invalid", checkpoint.id)


def test_a_mark_of_its_own_travels_and_comes_off_again(places: Path, bucket: str, checkpoint: Manifest) -> None:
    """Whatever was added at either place meanwhile, which gives the evaluation another id."""
    push(bucket)
    other = places / "other"
    pull(bucket, other)
    name = f"{RUN}/{STEP}"
    change("invalidate", name, "--because", "other data")
    assert push(bucket)["word"] == "status renewed"
    evaluate(other, make_result(checkpoint, "arithmetic"))
    assert pull(bucket, other, "--allow-invalid")["word"] == "status renewed"
    assert read_manifest(other / RUN / STEP / "manifest.json").status.reason == "other data"
    evaluate(places / "runs", make_result(checkpoint, "mmlu"))
    change("revalidate", name)
    assert push(bucket)["word"] == "sent"
    assert pull(bucket, other)["word"] == "fetched"
    assert read_manifest(other / RUN / STEP / "manifest.json").status.state == "valid"
    evaluate(other, make_result(checkpoint, "arithmetic", acc=0.5))
    assert read_manifest(other / RUN / STEP / "manifest.json").status.state == "valid"


def change(*arguments: str) -> None:
    done = CliRunner().invoke(inventory.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
