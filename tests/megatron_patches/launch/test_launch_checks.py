"""A launch's problems: all of them at once, each told once, and each fact looked up once."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.run_data import RunData
from megatron_patches.artefacts import folders
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.errors import TrainyardError
from megatron_patches.launch import facts as facts_module
from megatron_patches.launch.checks import launch_problems
from megatron_patches.launch.facts import LaunchFacts, LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.reading import load_run, read_run
from tests.megatron_patches.run.test_config_checks import CASES
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_training import SmallData, overrides


@dataclass(frozen=True)
class Mistake:
    """Something wrong with a launch that is in order otherwise."""

    told: str
    settings: Sequence[str] = ()
    machines: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)
    """facts of its checkpoint that are others than the run's"""
    free_space: int | None = None


MISTAKES = {
    "configuration": Mistake("checkpoint.every_steps 9 is beyond", overrides(checkpoint__every_steps=9)),
    "packages": Mistake(
        "the package wandb is not installed",
        overrides(logging__wandb="{project: p}"),
        {"packages": frozenset()},
    ),
    "precision": Mistake("fp16 needs a GPU", overrides(training__precision="fp16"), {"gpu": False}),
    "kernel": Mistake("cudnn needs a GPU", overrides(training__attention_kernel="cudnn"), {"gpu": False}),
    "layout": Mistake("3 processes cannot be divided", overrides(parallel__tensor=2, parallel__local_processes=3)),
    "document ends": Mistake(
        "objective.reset_positions: true must see where documents end",
        overrides(data__path="DATA/endless", objective="{name: causal, reset_positions: true}"),
    ),
    "vocabulary": Mistake("model.vocab_size 200 has ids up to 199", overrides(model__vocab_size=200)),
    "training data": Mistake("data.max_epochs allows 0.01", overrides(data__max_epochs=0.01)),
    "validation data": Mistake("evaluation.samples is 9,999", overrides(evaluation__samples=9999)),
    "identity": Mistake("training.seed is 8 in the checkpoint", saved={"training.seed": 8}),
    "learning rate": Mistake("the learning rate would jump", saved={"learning_rate": 0.5}),
    "space": Mistake("the next checkpoint takes", free_space=1000),
}


@pytest.fixture(scope="module")
def data(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data once more, without ends of documents."""
    folder = tmp_path_factory.mktemp("data")
    files = sorted((small_data.folder / "documents").iterdir())
    preprocess(PreprocessRequest(inputs=files, output=folder / "endless", tokenizer=small_data.folder / "tokenizer"))
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def run(small_data: SmallData, tmp_path: Path, runs: Path) -> Path:
    return small_data.write(tmp_path / "tr900-tests", RUN)


def facts_of(run: Path, settings: Sequence[str] = (), **machines: Any) -> LaunchFacts:
    target = LaunchTarget(**{"nodes": None, "gpu": False, "gpu_models": (), **machines})
    return LaunchFacts(read_run(run, settings), target)


def save(facts: LaunchFacts, runs: Path, step: int, **changes: Any) -> None:
    """A checkpoint as the run would have saved it, but for some facts or settings of its identity."""
    identity = run_identity(
        facts.config, facts.data.identity_for(facts.config.objective.token_roles), facts.data.tokenizer_id
    )
    rates = {
        name: facts.config.learning_rate(step + at) for at, name in enumerate(("learning_rate", "next_learning_rate"))
    }
    identity |= {key: value for key, value in changes.items() if key in identity}
    make_checkpoint(runs, step, **{**rates, **changes, "identity": identity})


def launch_with(
    mistakes: Sequence[Mistake], run: Path, runs: Path, data: Path, patch: pytest.MonkeyPatch
) -> LaunchFacts:
    settings = [word.replace("DATA", str(data)) for mistake in mistakes for word in mistake.settings]
    machines = {name: value for mistake in mistakes for name, value in mistake.machines.items()}
    saved = {name: value for mistake in mistakes for name, value in mistake.saved.items()}
    save(facts_of(run, settings), runs, 3, **saved)
    for mistake in mistakes:
        if mistake.free_space is not None:
            patch.setattr(facts_module, "free_space", lambda folder, free=mistake.free_space: free)
    return facts_of(run, settings, **machines)


def told(mistakes: Sequence[Mistake], problems: Sequence[str]) -> None:
    """Each mistake has a line of its own, in order."""
    assert len(problems) == len(mistakes), problems
    for mistake, problem in zip(mistakes, problems, strict=True):
        assert mistake.told in problem


def test_a_launch_that_is_in_order_has_no_problem(run: Path, runs: Path) -> None:
    assert launch_problems(facts_of(run)) == []
    save(facts_of(run), runs, 3)
    assert launch_problems(facts_of(run)) == []


@pytest.mark.parametrize("kinds", [(kind,) for kind in MISTAKES] + list(combinations(MISTAKES, 2)), ids="+".join)
def test_each_problem_is_told_beside_each_other(
    kinds: tuple[str, ...], run: Path, runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistakes = [MISTAKES[kind] for kind in kinds]
    told(mistakes, launch_problems(launch_with(mistakes, run, runs, data, monkeypatch)))


def test_all_problems_at_once(run: Path, runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes = list(MISTAKES.values())
    told(mistakes, launch_problems(launch_with(mistakes, run, runs, data, monkeypatch)))


def test_the_plan_tells_one_problem_a_line_and_writes_nothing(run: Path, runs: Path) -> None:
    settings = overrides(data__path="none", logging__wandb="{project: p}", parallel__tensor=3)
    with pytest.raises(TrainyardError) as caught:
        plan_run(run, settings, LaunchTarget(nodes=None, packages=frozenset()))
    lines = str(caught.value).splitlines()
    with pytest.raises(TrainyardError) as of_configuration:
        load_run(run, settings)
    assert lines[:-2] == str(of_configuration.value).splitlines()
    assert any("attention_heads 4 is not divisible by parallel.tensor 3" in line for line in lines[:-2])
    assert lines[-2].startswith("logging.wandb is set") and "none.bin does not exist" in lines[-1]
    assert not runs.exists()


class TestFactsAreLookedUpOnce:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What was opened."""
        paths: list[str] = []

        class Counted(RunData):
            def __init__(self, config: Any, *arguments: Any) -> None:
                paths.append(config.path)
                super().__init__(config, *arguments)

        monkeypatch.setattr(facts_module, "RunData", Counted)
        return paths

    def test_data(self, run: Path, runs: Path, opened: list[str]) -> None:
        save(facts_of(run), runs, 3)
        opened.clear()
        plan_run(run, [], LaunchTarget(nodes=None))
        assert len(opened) == 1

    def test_data_that_is_missing(self, run: Path, runs: Path, opened: list[str]) -> None:
        save(facts_of(run), runs, 3)
        opened.clear()
        with pytest.raises(TrainyardError, match=r"^.*none.bin does not exist.*$"):
            plan_run(run, overrides(data__path="none"), LaunchTarget(nodes=None))
        assert opened == ["none"]

    def test_manifests_of_checkpoints(self, run: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for step in (1, 2, 3):
            save(facts_of(run), runs, step)
        read: list[Path] = []
        read_manifest = folders.read_manifest
        monkeypatch.setattr(folders, "read_manifest", lambda path: (read.append(path), read_manifest(path))[1])
        plan_run(run, [], LaunchTarget(nodes=None))
        assert [path.parent.name for path in read] == [f"step-{step:010d}" for step in (3, 2, 1)]


class TestAMissingFactSilencesWhatNeedsIt:
    def test_data(self, run: Path, runs: Path) -> None:
        save(facts_of(run), runs, 3, **{"training.seed": 8, "learning_rate": 0.5})
        settings = overrides(
            data__path="none", model__vocab_size=200, evaluation__samples=9999, parallel__tensor=2,
            parallel__local_processes=3, training__precision="fp16",
        )  # fmt: skip
        device, layout, data, rate = launch_problems(facts_of(run, settings))
        assert "fp16 needs a GPU" in device and "3 processes cannot be divided" in layout
        assert "none.bin does not exist" in data and "learning rate would jump" in rate

    def test_a_variable_of_its_path(self, run: Path, runs: Path) -> None:
        settings = overrides(data__path="${NOWHERE}/text", data__max_epochs=0.01, parallel__local_processes=3)
        variable, batch = launch_problems(facts_of(run, settings))
        assert "the variable NOWHERE is not set" in variable and "3 data-parallel ranks" in batch

    def test_the_number_of_processes(self, run: Path, runs: Path) -> None:
        settings = overrides(training__batch_ramp="{start: 2, increment: 2, samples: 9}", data__max_epochs=0.01)
        processes, training = launch_problems(facts_of(run, settings, nodes=2))
        assert "processes per node are not known" in processes and "data.max_epochs allows" in training

    def test_a_batch_that_no_number_of_ranks_shares(self, run: Path, runs: Path) -> None:
        (batch,) = launch_problems(facts_of(run, overrides(training__micro_batch_size=3)))
        assert "training.global_batch_size 8 is not divisible by training.micro_batch_size 3" in batch

    def test_a_run_without_a_step(self, run: Path, runs: Path) -> None:
        save(facts_of(run), runs, 3, **{"training.seed": 8})
        settings = overrides(training__steps="null", training__samples=4, evaluation__samples=9999)
        steps, validation, identity = launch_problems(facts_of(run, settings))
        assert "no step fits" in steps and "evaluation.samples is 9,999" in validation and "training.seed" in identity

    def test_a_schedule_that_contradicts_the_length(self, run: Path, runs: Path) -> None:
        save(facts_of(run), runs, 6, learning_rate=0.5)
        settings = overrides(training__steps=5, schedule__warmup=5)
        schedule, length = launch_problems(facts_of(run, settings))
        assert "schedule.warmup 5 leaves nothing" in schedule and "Set training.steps to 6 or more" in length


class TestCheckpointsThatDifferAlikeAreToldTogether:
    def test_many(self, run: Path, runs: Path) -> None:
        facts = facts_of(run)
        for step in range(1, 8):
            save(facts, runs, step, **{"training.seed": 8})
        (problem,) = launch_problems(facts_of(run))
        newest = runs / RUN / "checkpoints" / "step-0000000007"
        assert problem.startswith(f"{newest} and 6 older ones are checkpoints of another run: training.seed is 8")

    def test_some(self, run: Path, runs: Path) -> None:
        facts = facts_of(run)
        for step, seed in enumerate((8, 9, 7, 9, 7), start=1):
            save(facts, runs, step, **{"training.seed": seed})
        two, one = launch_problems(facts_of(run))
        assert "step-0000000004 and an older one are checkpoints" in two and "training.seed is 9" in two
        assert "step-0000000001 is a checkpoint of another run: training.seed is 8" in one


def test_no_check_fails_of_a_configuration_that_contradicts_itself_or_repeats_it(run: Path, runs: Path) -> None:
    cases = [*(shlex.split(settings) for settings, *_ in CASES), overrides(data__split="1,0,1")]
    looked_at = 0
    for settings in cases:
        try:
            facts = facts_of(run, settings, gpu=True)
        except TrainyardError:
            continue  # there is no configuration
        problems, looked_at = launch_problems(facts), looked_at + bool(facts.run.problems)
        assert problems[: len(facts.run.problems)] == facts.run.texts()
        # some of these vocabularies are smaller than the data's, whose tokenizer has no mask token: faults of their own
        others = problems[len(facts.run.problems) :]
        assert all("holds token id" in each or "has no mask token" in each for each in others), problems
    assert looked_at > 30
