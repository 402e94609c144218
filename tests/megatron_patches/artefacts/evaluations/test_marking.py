"""Marks of evaluations, set at any moment at which their manifests are written."""

import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations import last_word, sealing
from megatron_patches.artefacts.evaluations.last_word import LAST_WORD
from megatron_patches.artefacts.evaluations.sealing import mark, seal
from megatron_patches.artefacts.evaluations.shelf import is_sealed, put_result, read_evaluation, result_bytes
from megatron_patches.artefacts.inventory import invalidation
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.invalidation import invalidate, revalidate
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.manifest import Manifest, Status, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged, Refused
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tests.small_evaluations import evaluate, make_result

INVALID = Status(state="invalid", reason="a spike", date="2026-11-02T00:00:00+00:00")
CHECKPOINT = f"{RUN}/checkpoints/step-0000000100/manifest.json"
VALID_AGAIN = Status(date="2026-11-02T00:00:00+00:00")
"""said in the same second"""
WRITING = (seal.__code__, mark.__code__, last_word.say.__code__)


def at_line(number: int, action: Callable[[], object], run: Callable[[], object], only: Iterable[CodeType]) -> bool:
    """Runs something, and another action before the line of that number which it comes to in some functions; whether it
    came to it.
    """
    functions, passed = set(only), 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if frame.f_code not in functions:
            return None
        if event == "line":
            passed += 1
            if passed == number:
                sys.settrace(None)
                action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return passed >= number


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))


def marked(root: Path, name: str, reason: str | None) -> None:
    """Invalid for a reason; without one valid again."""
    with open_catalogue(root, root / "data", thorough=True) as catalogue:
        artefact = resolve_artefact(name, catalogue)
        invalidate(catalogue, artefact, reason) if reason else revalidate(catalogue, artefact)


def status_of(folder: Path) -> Status:
    """Of an evaluation that is sealed."""
    problems: list[str] = []
    found = read_evaluation(folder, problems)
    assert problems == []
    assert is_sealed(found)
    assert found.manifest is not None
    return found.manifest.status


@pytest.fixture
def anew(tmp_path: Path, checkpoint: Manifest) -> Callable[[], Path]:
    """Gives the folder of one evaluation, each time as it was first: sealed, with a result that came since."""
    kept = evaluate(tmp_path, make_result(checkpoint), items=0)
    put_result(kept, "mmlu", result_bytes(make_result(checkpoint, "mmlu")), None)
    as_it_was = shutil.copytree(kept, tmp_path / "as-it-was")

    def fresh() -> Path:
        shutil.rmtree(kept)
        return Path(shutil.copytree(as_it_was, kept))

    return fresh


def test_a_mark_and_a_result_at_once(anew: Callable[[], Path]) -> None:
    """The one as a whole before each line of the other; both are there in the end."""
    for first in (0, 1):
        for number in range(1, 100):
            folder = anew()
            actions = (lambda: seal(folder), lambda: mark(folder, INVALID))  # noqa: B023
            if not at_line(number, actions[1 - first], actions[first], WRITING):
                break
            assert status_of(folder) == INVALID, number
            assert set(read_evaluation(folder, []).results) == {"hellaswag", "mmlu"}
        assert number > 10


def test_a_mark_and_its_end_at_once(anew: Callable[[], Path], checkpoint: Manifest) -> None:
    """Who says a word last is heard."""
    for number in range(1, 100):
        folder = anew()
        if not at_line(number, lambda: mark(folder, VALID_AGAIN), lambda: mark(folder, INVALID), WRITING):  # noqa: B023
            break
        said = last_word.last_word(folder, [checkpoint.id])
        assert said in (VALID_AGAIN, INVALID)
        assert status_of(folder) == said, number
    assert number > 10


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["a spike", None], ids=["invalid", "valid"])
@pytest.mark.parametrize("first", ["seal", "mark"])
def test_an_evaluation_sealed_while_its_checkpoint_is_marked(tmp_path: Path, reason: str | None, first: str) -> None:
    """The one as a whole before each line of the other."""
    lines = (seal.__code__, invalidate.__code__, revalidate.__code__, invalidation._rewrite.__code__)
    for number in range(1, 100):
        root = tmp_path / str(number)
        checkpoint = make_checkpoint(root, 100)
        if reason is None:
            write_manifest(root / CHECKPOINT, checkpoint.model_copy(update={"status": INVALID}))
        folder = root / RUN / "evals" / "step-0000000100"
        folder.mkdir(parents=True)
        put_result(folder, "hellaswag", result_bytes(make_result(checkpoint)), None)
        sealing_it, marking = lambda: seal(folder), lambda: marked(root, f"{RUN}@100", reason)  # noqa: B023
        both = (sealing_it, marking) if first == "seal" else (marking, sealing_it)
        if not at_line(number, both[1], both[0], lines):
            break
        found = status_of(folder)
        assert (found.state, found.cause) == (("invalid", checkpoint.id) if reason else ("valid", None)), number
    assert number > 10


def test_a_writer_of_marks_that_is_killed_is_heard_by_the_next_result(
    run: RunFolder, checkpoint: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))

    def killed(path: Path, manifest: Manifest) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            mark(folder, INVALID)
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    assert status_of(folder) == INVALID


def test_an_evaluation_that_grew_since_it_was_marked_can_be_made_valid_again(
    run: RunFolder, checkpoint: Manifest
) -> None:
    root, name = run.path.parent, f"{RUN}/evals/step-0000000100"
    folder = evaluate(root, make_result(checkpoint))
    marked(root, name, "other data")
    evaluate(root, make_result(checkpoint, "mmlu"))
    assert status_of(folder).reason == "other data"
    marked(root, name, None)
    assert status_of(folder).state == "valid"
    evaluate(root, make_result(checkpoint, "arithmetic"))
    assert status_of(folder).state == "valid"


def test_what_is_valid_again_by_itself_shares_the_mark_of_its_checkpoint(run: RunFolder, checkpoint: Manifest) -> None:
    root, name = run.path.parent, f"{RUN}/evals/step-0000000100"
    folder = evaluate(root, make_result(checkpoint))
    marked(root, name, "other data")
    marked(root, f"{RUN}@100", "a spike")
    assert status_of(folder).reason == "other data"
    marked(root, name, None)
    assert status_of(folder).state == "invalid"
    assert "a spike" in str(status_of(folder).reason)
    marked(root, f"{RUN}@100", None)
    assert status_of(folder).state == "valid"


def test_a_mark_of_the_checkpoints_data_is_that_of_a_later_evaluation(tmp_path: Path) -> None:
    dataset = make_artefact(tmp_path / "data" / "text", "dataset", {"text.bin": b"0"}, {})
    checkpoint = make_checkpoint(tmp_path, 100, parents=(dataset.id,))
    marked(tmp_path, dataset.id, "of the test set")
    folder = evaluate(tmp_path, make_result(checkpoint))
    assert status_of(folder).cause == dataset.id
    assert "of the test set" in str(status_of(folder).reason)
    marked(tmp_path, dataset.id, None)
    assert status_of(folder).state == "valid"


def test_weights_that_are_left_of_a_checkpoint_share_their_mark(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 100)
    weights = {**checkpoint.facts, "content": "weights"}
    place = tmp_path / RUN / "checkpoints" / "weights-0000000100"
    make_artefact(place, "checkpoint", {"weights.safetensors": b"0"}, weights, (checkpoint.id,))
    (tmp_path / RUN / "checkpoints" / "step-0000000100" / "manifest.json").unlink()
    write_manifest(
        place / "manifest.json", read_manifest(place / "manifest.json").model_copy(update={"status": INVALID})
    )
    assert status_of(evaluate(tmp_path, make_result(checkpoint))).reason is not None


def test_an_evaluation_without_a_result_that_can_be_read_is_marked_all_the_same(
    run: RunFolder, checkpoint: Manifest
) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    (folder / "hellaswag.json").write_text("{")
    mark(folder, INVALID)
    assert read_manifest(folder / "manifest.json").status == INVALID


def test_a_word_of_another_checkpoint_does_not_count(run: RunFolder, checkpoint: Manifest) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    last_word.say(folder, ["e" * 64], INVALID)
    evaluate(run.path.parent, make_result(checkpoint, "mmlu"))
    assert status_of(folder).state == "valid"


@pytest.mark.parametrize("content", ["{", "{}", '{"checkpoints": [1], "status": {}}', "[" * 100_000])
def test_a_word_that_is_none_is_named(run: RunFolder, checkpoint: Manifest, content: str) -> None:
    folder = evaluate(run.path.parent, make_result(checkpoint))
    (folder / LAST_WORD).write_text(content)
    with pytest.raises((Damaged, Refused), match=r"\.status\.json"):
        seal(folder)
