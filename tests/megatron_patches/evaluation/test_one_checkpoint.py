"""One checkpoint evaluated: what is missing is claimed, asked, shelved; models and answers are made up."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.result import Item, Metric, TaskResult
from megatron_patches.artefacts.evaluations.shelf import Evaluation, is_sealed, read_evaluation, shelve
from megatron_patches.artefacts.evaluations.states import Claim, claim, read_states
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.errors import Damaged, Refused, TrainingFailed
from megatron_patches.evaluation import asked as asked_module
from megatron_patches.evaluation.asked import Asked, standing_of
from megatron_patches.evaluation.one_checkpoint import OneCheckpoint
from megatron_patches.evaluation.selection import Candidate, candidate_at
from megatron_patches.evaluation.tasks.outcome import EvaluatedCheckpoint, Outcome
from megatron_patches.evaluation.tasks.task import HarnessTask, LossTask, TaskSettings
from megatron_patches.run.reading import to_yaml
from tests.small_artefacts import RUN, make_artefact
from tests.small_training import SmallData, overrides

TASKS = ("first", "second", "third")
LOSS = "lost"


@pytest.fixture(scope="module")
def config_text(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return to_yaml(small_data.run(tmp_path_factory.mktemp("yaml")))


@pytest.fixture
def candidate(config_text: str, tmp_path: Path) -> Candidate:
    folder = tmp_path / RUN / "checkpoints" / checkpoint_name(100)
    facts = {"run": RUN, "launch": "0001", "step": 100, "samples": 800, "tokens": 12800}
    make_artefact(folder, "checkpoint", {CONFIG: config_text.encode(), "trainer.json": b"{}"}, facts)
    return candidate_at(folder)


@pytest.fixture
def run(candidate: Candidate) -> RunFolder:
    return RunFolder(candidate.folder.parents[1])


def task(name: str, definition: str = "a" * 64, version: str = "1") -> HarnessTask:
    return HarnessTask(name, version, definition, TaskSettings(), {"task": name})


class Asking(OneCheckpoint):
    """With made-up models; `answers` says what becomes of a task."""

    answers: Callable[[str], None]
    opened: list[str]

    @contextmanager
    def _export(self, tasks: Any) -> Iterator[Any]:
        self.opened.append("export")
        self.answers("export")
        yield self._answered("export")

    @contextmanager
    def _engine(self, tasks: Any) -> Iterator[Any]:
        self.opened.append("engine")
        self.answers("engine")
        yield self._answered("engine")

    def _answered(self, through: Any) -> Callable[[Any], Outcome]:
        def answered(task: HarnessTask | LossTask) -> Outcome:
            self.answers(task.label)
            return outcome(task, through)

        return answered


def outcome(task: HarnessTask | LossTask, through: Any = "export") -> Outcome:
    definition = task.definition if isinstance(task, HarnessTask) else "e" * 64
    return Outcome(
        task, through, "1", definition, 0, 4, {"acc": Metric(value=0.5)}, 0.1,
        items=[Item(id="1", metrics={"acc": 1.0})],
    )  # fmt: skip


class World:
    """A checkpoint, the tasks that are asked of it, and what was told."""

    def __init__(self, run: RunFolder, candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.candidate = run, candidate
        self.tasks: list[HarnessTask | LossTask] = [task(name) for name in TASKS]
        self.told: list[str] = []
        self.heard: list[str] = []
        self.opened: list[str] = []
        self.answers: Callable[[str], None] = lambda label: None
        monkeypatch.setattr(Asked, "prepared", lambda asked: self.tasks)
        monkeypatch.setattr(asked_module, "_definition", self._definition)

    def _definition(self, task: HarnessTask | LossTask, config: Any, candidate: Any) -> str:
        return task.definition if isinstance(task, HarnessTask) else "e" * 64

    def evaluate(self, **given: Any) -> bool:
        hear = lambda text: self.heard.append(text)  # noqa: E731
        one = Asking(
            self.run, self.candidate, Asked(TASKS, **given), lambda result: self.told.append(result.label), hear
        )
        one.answers, one.opened = self.answers, self.opened
        return one.evaluate()

    @property
    def shelf(self) -> Evaluation:
        problems: list[str] = []
        found = read_evaluation(self.run.path / "evals" / checkpoint_name(100), problems)
        assert problems == []
        return found

    def states(self) -> list[tuple[str, str, str]]:
        return [(each.label, each.state, each.message) for each in read_states(self.run)]


@pytest.fixture
def world(run: RunFolder, candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(run, candidate, monkeypatch)


def test_each_result_is_on_the_shelf_when_it_is_told(world: World) -> None:
    seen: list[list[str]] = []
    world.answers = lambda label: seen.append(sorted(world.shelf.results)) if label in TASKS[1:] else None
    assert world.evaluate()
    assert seen == [["first"], ["first", "second"]]
    assert world.told == list(TASKS)
    assert is_sealed(world.shelf)
    result = world.shelf.results["first"]
    assert (result.run, result.step, result.tokens) == (RUN, 100, 12800)
    assert result.checkpoint == world.candidate.manifest.id
    assert world.states() == []


def test_what_is_there_is_not_asked_again(world: World) -> None:
    world.evaluate()
    world.tasks.append(task("fourth"))
    world.told.clear()
    assert world.evaluate()
    assert world.told == ["fourth"]
    assert sorted(world.shelf.results) == sorted([*TASKS, "fourth"])


def test_nothing_is_opened_where_nothing_is_missing(world: World) -> None:
    world.evaluate()
    world.opened.clear()
    assert world.evaluate()
    assert world.opened == []
    assert world.evaluate(again=True)
    assert (world.opened, world.told) == (["export"], [*TASKS, *TASKS])


def test_a_loss_is_of_the_engine_and_comes_after_the_export(world: World) -> None:
    world.tasks = [LossTask(LOSS, TaskSettings()), task("first")]
    assert world.evaluate()
    assert (world.opened, world.told) == (["export", "engine"], ["first", LOSS])
    assert world.shelf.results[LOSS].through == "engine"


@pytest.mark.parametrize("given", [{"through": "engine"}, {"tensor": 2}, {"pipeline": 2}])
def test_all_of_it_in_the_engine(world: World, given: dict[str, Any]) -> None:
    world.tasks = [task("first"), LossTask(LOSS, TaskSettings())]
    assert world.evaluate(**given)
    assert (world.opened, world.told) == (["engine"], ["first", LOSS])


def test_one_that_fails_is_recorded_and_the_others_are_made(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def answers(label: str) -> None:
        if label == "first":
            raise Refused("its text is too long")
        if label == "second":
            raise ZeroDivisionError("odd")

    world.answers = answers
    assert not world.evaluate()
    assert world.told == ["third"]
    assert world.states() == [
        ("first", "failed", "its text is too long"),
        ("second", "failed", "ZeroDivisionError: odd"),
    ]
    assert any("its text is too long" in each for each in world.heard)
    assert "Traceback" in capsys.readouterr().err
    world.answers = lambda label: None
    assert world.evaluate()
    assert world.states() == []


@pytest.mark.parametrize("error", [Refused("no format"), OSError(28, "no space"), TrainingFailed("a process is gone")])
def test_where_the_model_cannot_be_had_all_have_failed(world: World, error: Exception) -> None:
    def answers(label: str) -> None:
        if label == "export":
            raise error

    world.answers = answers
    world.tasks.append(LossTask(LOSS, TaskSettings()))
    assert not world.evaluate()
    assert world.told == [LOSS]
    assert [label for label, state, _ in world.states() if state == "failed"] == list(TASKS)


def test_where_a_process_of_the_model_is_gone_the_rest_has_failed(world: World) -> None:
    def answers(label: str) -> None:
        if label == "second":
            raise TrainingFailed("process 1 was killed")

    world.answers = answers
    assert not world.evaluate()
    assert world.told == ["first"]
    assert world.states() == [(label, "failed", "process 1 was killed") for label in TASKS[1:]]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_what_is_cut_leaves_its_results_and_no_state(world: World, error: BaseException) -> None:
    def answers(label: str) -> None:
        if label == "second":
            raise error

    world.answers = answers
    with pytest.raises(type(error)):
        world.evaluate()
    assert (sorted(world.shelf.results), world.states()) == (["first"], [])


def test_what_another_process_has_is_left_to_it(world: World) -> None:
    other = claim(world.run, 100, "second")
    assert isinstance(other, Claim)
    assert world.evaluate()
    assert world.told == ["first", "third"]
    assert [each for each in world.heard if each.startswith("second: process ")] != []
    assert world.states() == [("second", "running", "")]


def test_what_came_while_it_was_claimed_is_not_made_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    standing = standing_of(world.run, world.candidate, world.tasks, Asked(TASKS))
    of = EvaluatedCheckpoint(RUN, 100, None, world.candidate.manifest.id)
    shelve(world.run, outcome(world.tasks[0]).result(of), (), world.candidate.ids)
    monkeypatch.setattr("megatron_patches.evaluation.one_checkpoint.standing_of", lambda *given: standing)
    assert world.evaluate()
    assert world.told == ["second", "third"]


def shelved(world: World, name: str = "first", **changed: Any) -> TaskResult:
    of = EvaluatedCheckpoint(RUN, 100, None, world.candidate.manifest.id)
    result = outcome(task(name)).result(of).model_copy(update=changed)
    shelve(world.run, result, (), world.candidate.ids)
    return result


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"definition": "b" * 64, "version": "2"}, "its version is 2, and 1 is asked for"),
        ({"definition": "b" * 64}, "prompts, metrics, data or settings are others"),
    ],
)
def test_a_result_of_another_definition_is_neither_taken_nor_replaced(
    world: World, changed: dict[str, Any], said: str
) -> None:
    shelved(world, **changed)
    with pytest.raises(Refused, match=f"{said}.*NAME=.*--again"):
        world.evaluate()
    assert world.opened == []
    assert world.evaluate(again=True)
    assert world.shelf.results["first"].definition == "a" * 64


def test_results_without_a_manifest_get_one(world: World) -> None:
    shelved(world)
    (world.shelf.folder / MANIFEST).unlink()
    world.tasks = [task("first")]
    assert world.evaluate()
    assert is_sealed(world.shelf)


def test_a_damaged_result_is_made_again(world: World) -> None:
    shelved(world)
    (world.run.path / "evals" / checkpoint_name(100) / "first.json").write_text("{")
    assert world.evaluate()
    assert world.told == list(TASKS)
    assert is_sealed(world.shelf)


def test_a_damaged_result_of_another_task_is_told_before_anything_is_asked(world: World) -> None:
    shelved(world, "other")
    (world.run.path / "evals" / checkpoint_name(100) / "other.json").write_text("{")
    with pytest.raises(Damaged, match=r"other\.json"):
        world.evaluate()
    assert world.opened == []


def test_an_evaluation_that_is_marked_invalid(world: World) -> None:
    shelved(world)
    path = world.shelf.folder / MANIFEST
    manifest = read_manifest(path)
    status = manifest.status.model_copy(update={"state": "invalid", "reason": "wrong file"})
    write_manifest(path, manifest.model_copy(update={"status": status}))
    with pytest.raises(Refused, match="marked invalid"):
        world.evaluate()


def test_an_evaluation_of_the_checkpoint_that_had_this_step_before(world: World) -> None:
    result = outcome(task("first")).result(EvaluatedCheckpoint(RUN, 100, None, "f" * 64))
    shelve(world.run, result, (), ["f" * 64])
    assert world.evaluate()
    assert world.told == list(TASKS)
    assert world.shelf.folder.with_name(f"{world.shelf.folder.name}.replaced-1").is_dir()


def test_a_model_that_transformers_cannot_express_is_asked_in_the_engine(small_data: SmallData, tmp_path: Path) -> None:
    plain = small_data.run(tmp_path)
    odd = small_data.run(tmp_path, overrides(model__norm="rmsnorm", model__norm_bias="false"))
    assert Asked(TASKS).way(plain) == ("export", "")
    way, why = Asked(TASKS).way(odd)
    assert (way, "no architecture of transformers" in why) == ("engine", True)
    assert Asked(TASKS, through="engine").way(odd) == ("engine", "")
    with pytest.raises(Refused, match="leave out --through export"):
        Asked(TASKS, through="export").way(odd)


def test_what_is_asked_travels_as_json() -> None:
    asked = Asked(("a,b", "c"), shots=0, through="engine", tensor=2, again=True)
    assert Asked.of(json.loads(json.dumps(asdict(asked)))) == asked
    assert replace(asked, again=False) != asked
