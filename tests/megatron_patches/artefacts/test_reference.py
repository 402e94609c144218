"""One grammar of RUN@STEP, the same through every door."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.reference import CheckpointReference, parse_reference
from megatron_patches.errors import Missing, TrainyardError
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tests.small_evaluations import evaluate, make_result
from tools.run_files.checkpoint_reference import find_checkpoint, find_checkpoints


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("r@5", CheckpointReference("r", 5)),
        ("r@0", CheckpointReference("r", 0)),
        ("r@0000001000", CheckpointReference("r", 1000)),
        ("r@5/weights", CheckpointReference("r", 5, weights_only=True)),
        ("runs/r@5", CheckpointReference("runs/r", 5)),
        ("a@b/r@5", CheckpointReference("a@b/r", 5)),
        ("r@gold", CheckpointReference("r", None, chosen="gold")),
        ("runs/r@best", CheckpointReference("runs/r", None, chosen="best")),
        ("r@best:hellaswag.acc_norm", CheckpointReference("r", None, chosen="best", by="hellaswag.acc_norm")),
        ("a/r@best:gsm8k.5-shot.pass@1", CheckpointReference("a/r", None, chosen="best", by="gsm8k.5-shot.pass@1")),
        ("r@best:sums.2 digits.acc", CheckpointReference("r", None, chosen="best", by="sums.2 digits.acc")),
        ("r", None),
        ("runs/r", None),
        ("", None),
    ],
)
def test_references(text: str, found: CheckpointReference | None) -> None:
    assert parse_reference(text) == found


ODD = (
    "@", "r@", "@5", "r@x", "r@-1", "r@+1", "r@ 5", "r@5 ", "r@5\n", "r@1e3", "r@1.0", "r@٣", "r@५", "r@²", "r@1_000",
    "r@5/", "r@5/extra", "r@5/weights/", "r@5/weights/x", "r@5//weights", "r@/weights", f"r@{10**10}", f"r@{10**400}",
    "r@latest", "r@\x1b[31m", "@best", "r@best/weights", "r@Gold",
)  # fmt: skip


@pytest.mark.parametrize(
    "text", ["r@best:", "r@best:acc", "@best:t.acc", "r@best:.acc", "r@best:t.", "r@best: t.acc", "r@best:t.a\x1b"]
)
def test_a_metric_is_named_with_its_task(text: str) -> None:
    with pytest.raises(TrainyardError, match="behind best: a metric of an evaluation") as error:
        parse_reference(text)
    assert str(error.value).isprintable()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RUNS", "DATA", "CACHE"):
        monkeypatch.setenv(f"TRAINYARD_{name}", str(tmp_path / name.lower()))
    for step in (5, 10):
        make_checkpoint(tmp_path / "runs", step)
    weights = tmp_path / "runs" / RUN / "checkpoints" / "weights-0000000005"
    make_artefact(weights, "checkpoint", {"a": b"1"}, {"run": RUN, "step": 5, "content": "weights"})
    return tmp_path / "runs"


@pytest.mark.parametrize("text", ODD)
def test_odd_ones_are_refused_by_name_through_both_doors(runs: Path, text: str) -> None:
    for find in (find_checkpoints, lambda given: open_and_resolve(given)):
        with pytest.raises(TrainyardError, match="before @ stands a run, behind it a step") as error:
            find(text)
        assert str(error.value).isprintable()


def open_and_resolve(text: str) -> Path:
    with open_catalogue() as catalogue:
        return resolve_artefact(text, catalogue).folder


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        (f"{RUN}@5", "step-0000000005"),
        (f"{RUN}@5/weights", "weights-0000000005"),
        (f"{RUN}@10", "step-0000000010"),
        ("tr900a@0000000010", "step-0000000010"),
    ],
)
def test_both_doors_find_the_same(runs: Path, text: str, folder: str) -> None:
    assert open_and_resolve(text) == find_checkpoint(text) == runs / RUN / "checkpoints" / folder


def test_both_doors_find_what_was_chosen(runs: Path) -> None:
    for text, said in ((f"{RUN}@best", "has a validation loss on record"), (f"{RUN}@gold", "was promoted")):
        for find in (find_checkpoint, open_and_resolve):
            with pytest.raises(Missing, match=said):
                find(text)
    for step, loss in ((15, 2.5), (20, 2.75)):
        manifest = make_checkpoint(runs, step, validation_loss=loss)
    annotate(runs / RUN, Annotation("gold", "by hand", manifest.id))
    for text, step in ((f"{RUN}@best", 15), ("tr900a@gold", 20)):
        assert open_and_resolve(text) == find_checkpoint(text) == runs / RUN / "checkpoints" / f"step-{step:010d}"


def test_both_doors_find_the_best_by_an_evaluation(runs: Path) -> None:
    for text, said in ((f"{RUN}@best:hellaswag.acc", "tools/evals run makes one"),):
        for find in (find_checkpoint, open_and_resolve):
            with pytest.raises(Missing, match=said):
                find(text)
    for step, accuracy in ((5, 0.5), (10, 0.25)):
        manifest = make_checkpoint(runs, step)
        evaluate(runs, make_result(manifest, acc=accuracy))
    expected = runs / RUN / "checkpoints" / "step-0000000005"
    assert open_and_resolve(f"{RUN}@best:hellaswag.acc") == find_checkpoint(f"{RUN}@best:hellaswag.acc") == expected


@pytest.mark.parametrize(
    ("text", "said"), [(f"{RUN}@10/weights", "of weights alone of step 10; the full"), (f"{RUN}@7", "of step 7")]
)
def test_what_is_not_there(runs: Path, text: str, said: str) -> None:
    for find in (find_checkpoints, open_and_resolve):
        with pytest.raises(Missing, match=said):
            find(text)


def test_a_folder_whose_name_has_an_at_is_a_folder(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "me@host" / "step-0000000005"
    make_artefact(folder, "checkpoint", {"a": b"1"}, {})
    assert find_checkpoints(str(folder)) == [folder]


def test_wildcards_of_the_catalogues_language_are_text(runs: Path) -> None:
    for text in ("%", "_" * 8, "%" * 60_000, "step-000000000_"):
        with pytest.raises((Missing, OSError)):
            open_and_resolve(text)
