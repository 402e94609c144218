"""`tools/evals run`: which checkpoints and tasks, what is refused before anything is made, watching, job arrays. What
evaluates a checkpoint is made up, but for one test of the whole path."""

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.artefacts.evaluations.shelf import is_sealed, list_evaluations, shelve
from megatron_patches.artefacts.evaluations.states import Claim, announce, claim, read_states, states_folder
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.evaluation.asked import Asked
from megatron_patches.evaluation.selection import parse_which
from megatron_patches.evaluation.tasks.outcome import EvaluatedCheckpoint, Outcome
from megatron_patches.evaluation.tasks.task import HarnessTask
from megatron_patches.run.reading import to_yaml
from tests.command_line import Call, verb
from tests.megatron_patches.transformers_exchange.checkpoints import save_random, small_run
from tests.small_artefacts import RUN, make_artefact
from tests.small_training import SmallData
from tools.commands.evals import command_line
from tools.commands.evals.running import child as one_child
from tools.commands.evals.running import job_array, this_machine, watching
from tools.commands.evals.running.plan import Plan, Work

STEPS = (100, 200, 300)
HELLASWAG = {"ind": 1, "ctx": "a b", "ctx_a": "a", "ctx_b": "b", "activity_label": "c", "endings": ["d", "e", "f", "g"]}


@pytest.fixture(scope="module")
def config_text(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return to_yaml(small_data.run(tmp_path_factory.mktemp("yaml")))


@pytest.fixture
def yard(places: Path, config_text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of three checkpoints and a file of a task, where the commands are called."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    for step in STEPS:
        add_checkpoint(places, config_text, step)
    rows = [json.dumps({**HELLASWAG, "ind": number, "label": number % 4}) for number in range(4)]
    (places / "items.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(places)
    return places


def add_checkpoint(yard: Path, config_text: str, step: int) -> None:
    folder = yard / "runs" / RUN / "checkpoints" / checkpoint_name(step)
    facts = {"run": RUN, "launch": "0001", "step": step, "samples": 8 * step, "tokens": 128 * step}
    make_artefact(folder, "checkpoint", {CONFIG: config_text.encode(), "trainer.json": b"{}"}, facts)


class Child:
    """In place of the process that evaluates a checkpoint; `codes` says how it ends at which step."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.codes: dict[int, int] = {}
        self.before: Callable[[int], None] = lambda step: None

    def __call__(self, plan: Plan, work: Work, announced: Mapping[str, str]) -> int:
        assert set(announced) <= set(work.labels)
        step = work.candidate.step
        self.steps.append(step)
        self.before(step)
        code = self.codes.get(step, 0)
        for task in plan._tasks:
            if task.label in work.labels:
                self._evaluate(plan, work, task, code)
        return code

    def _evaluate(self, plan: Plan, work: Work, task: Any, code: int) -> None:
        taken = claim(plan.run, work.candidate.step, task.label)
        if not isinstance(taken, Claim):
            return
        if code < 0:
            path = states_folder(plan.run, work.candidate.step) / f"{task.label}.json"
            facts = json.loads(path.read_text())
            path.write_text(json.dumps({**facts, "by": {**facts["by"], "started": 1}}))
        elif code > 0:
            taken.fail(f"it ends with {code}")
        elif code == 0:
            assert isinstance(task, HarnessTask)
            made = Outcome(task, "export", task.version, task.definition, 0, 4, {"acc": Metric(value=0.5)}, 0.1)
            of = EvaluatedCheckpoint(RUN, work.candidate.step, 5, work.candidate.manifest.id)
            shelve(plan.run, made.result(of), (), work.candidate.ids)
            taken.release()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    made = Child()
    monkeypatch.setattr(this_machine, "_run_child", made)
    monkeypatch.setattr(this_machine, "publish", lambda run: [])
    monkeypatch.setattr(watching, "end_by_term", lambda: None)
    return made


@pytest.fixture
def evals(yard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return verb(command_line, monkeypatch, capsys)


@pytest.fixture
def run(yard: Path) -> RunFolder:
    return RunFolder(yard / "runs" / RUN)


TASK = ("--tasks", "hellaswag:items.jsonl")


def test_what_lacks_a_result_is_evaluated_once(evals: Call, child: Child, run: RunFolder) -> None:
    assert evals("run", RUN, *TASK) == (0, "", "")
    assert child.steps == [*STEPS]
    done = evals("run", RUN, *TASK)
    assert (done.returncode, done.stdout) == (0, f"{RUN} hellaswag: evaluated already at step 100, 200, 300\n")
    assert child.steps == [*STEPS]
    assert evals("run", f"{RUN}@200", *TASK, "--again").returncode == 0
    assert child.steps == [*STEPS, 200]
    assert read_states(run) == []


@pytest.mark.parametrize(
    ("words", "steps"),
    [(("--steps", "last"), [300]), (("--steps", "100,300"), [100, 300]), (("--steps", "every-20K"), [200])],
)
def test_which_checkpoints(evals: Call, child: Child, words: tuple[str, ...], steps: list[int]) -> None:
    assert evals("run", RUN, *TASK, *words).returncode == 0
    assert child.steps == steps


def test_labels_say_what_was_asked_otherwise(evals: Call, child: Child, run: RunFolder) -> None:
    assert evals("run", f"{RUN}@100", "--tasks", "mine=hellaswag:items.jsonl", "--limit", 2).returncode == 0
    [evaluation] = list_evaluations(run, [])
    assert list(evaluation.results) == ["mine.limit-2"]


def test_what_fails_is_told_at_the_end_and_the_others_are_made(evals: Call, child: Child, run: RunFolder) -> None:
    child.codes = {100: 1, 200: -signal.SIGKILL}
    done = evals("run", RUN, *TASK)
    assert (done.returncode, child.steps) == (1, [*STEPS])
    assert done.stderr.splitlines() == [
        f"failed: {RUN}@100 hellaswag: it ends with 1",
        f"failed: {RUN}@200 hellaswag: the process ended by signal 9 (out of memory?)",
    ]
    assert [(each.step, each.state, each.judged) for each in read_states(run)] == [
        (100, "failed", False),
        (200, "failed", False),
    ]
    again = evals("run", RUN, *TASK)
    assert (again.returncode, child.steps) == (1, [*STEPS])
    assert "hellaswag failed before at step 100: it ends with 1; --again tries it again" in again.stderr
    child.codes = {}
    assert evals("run", RUN, *TASK, "--again").returncode == 0
    assert child.steps == [*STEPS, *STEPS]
    assert read_states(run) == []


@pytest.mark.parametrize(("code", "ended"), [(130, 130), (-signal.SIGINT, 130), (143, 143), (-signal.SIGTERM, 143)])
def test_what_is_ended_leaves_no_states(
    yard: Path, child: Child, run: RunFolder, code: int, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.codes = {100: code}
    monkeypatch.setattr(child, "_evaluate", lambda *given: None)
    plan = Plan(run, parse_which("new"), Asked(tasks=("hellaswag:items.jsonl",)))
    child.before = lambda step: waiting.extend(each.step for each in read_states(run) if each.state == "pending")
    waiting: list[int] = []
    with pytest.raises(KeyboardInterrupt if ended == 130 else SystemExit):
        this_machine.evaluate(plan, plan.look())
    assert (waiting, child.steps) == ([100, 200, 300], [100])
    assert read_states(run) == []


def test_a_checkpoint_that_is_removed_meanwhile_is_no_failure(evals: Call, child: Child, run: RunFolder) -> None:
    child.codes = {100: 1}
    child.before = lambda step: shutil.rmtree(run.checkpoints / checkpoint_name(100), ignore_errors=True)
    done = evals("run", RUN, *TASK)
    assert done.returncode == 0
    assert "step-0000000100 was removed while it was evaluated" in done.stderr
    assert read_states(run) == []


def test_what_others_do_is_left_to_them(evals: Call, child: Child, run: RunFolder, yard: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", CLAIMING, str(run.path)], cwd=CHECKOUT, stdout=subprocess.PIPE)
    try:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == b"claimed\n"
        assert evals("run", RUN, *TASK).returncode == 0
        assert [each.step for each in list_evaluations(run, [])] == [200, 300]
        assert [(each.step, each.state) for each in read_states(run)] == [(100, "running")]
    finally:
        sleeper.kill()
        sleeper.wait()


CLAIMING = """
import sys, time
from pathlib import Path
from megatron_patches.artefacts.evaluations.states import claim
from megatron_patches.artefacts.run_folder import RunFolder
claim(RunFolder(Path(sys.argv[1])), 100, "hellaswag")
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing", *TASK), "there is no run directory"),
        ((RUN, "--tasks", "hellaswg:items.jsonl"), "no format 'hellaswg' of local files"),
        ((RUN, "--tasks", "hellaswag:none.jsonl"), "none.jsonl does not exist"),
        ((RUN, *TASK, "--tasks", "hellaswag:items.jsonl"), "two tasks have the name hellaswag"),
        ((f"{RUN}@100", *TASK, "--steps", "all"), "leave one of both out"),
        ((RUN, *TASK, "--steps", "150"), "no checkpoint of step 150"),
        ((RUN, *TASK, "--watch", "--come-back"), "--watch and --come-back exclude each other"),
        ((RUN, *TASK, "--submit"), "name the file"),
        ((RUN, *TASK, "--through", "export", "--tensor-parallel", "2"), "leave out --through export"),
        ((RUN, *TASK, "--tensor-parallel", "3"), "--tensor-parallel"),
        ((RUN, *TASK, "--length", "4096"), "places alone"),
        ((RUN, "--tasks", "validation:nothing"), "no validation group"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    evals: Call, child: Child, run: RunFolder, words: tuple[str, ...], message: str
) -> None:
    done = evals("run", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert child.steps == []
    assert not (run.path / "evals").exists()


def test_a_result_of_other_data_is_told_for_all_checkpoints_at_once(evals: Call, child: Child, yard: Path) -> None:
    assert evals("run", RUN, *TASK, "--steps", "100,200").returncode == 0
    (yard / "items.jsonl").write_text((yard / "items.jsonl").read_text().replace('"d"', '"dd"'))
    done = evals("run", RUN, *TASK)
    assert done.returncode == 2
    assert [f"{RUN}@{step} has a result hellaswag of another definition" in done.stderr for step in STEPS] == [
        True, True, False,
    ]  # fmt: skip
    assert child.steps == [100, 200]


def test_a_damaged_checkpoint_is_passed_over(evals: Call, child: Child, run: RunFolder) -> None:
    (run.checkpoints / checkpoint_name(200) / "trainer.json").unlink()
    done = evals("run", RUN, *TASK)
    assert (done.returncode, child.steps) == (0, [100, 300])
    assert "passed over:" in done.stderr
    assert "trainer.json" in done.stderr


def test_without_the_libraries(evals: Call, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "lm_eval" else found(name, *more)
    )
    done = evals("run", RUN, *TASK)
    assert done.returncode == 2
    assert "pip install -c constraints.txt -e .[evals]" in done.stderr


class TestWatching:
    @pytest.fixture(autouse=True)
    def world(self, yard: Path, config_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that saves at step 400 while one waits for the first time, and is finished the second time."""
        self.waits: list[int] = []

        def sleep(seconds: int) -> None:
            self.waits.append(seconds)
            if len(self.waits) == 1:
                add_checkpoint(yard, config_text, 400)
            assert len(self.waits) < 5, "it does not end"

        monkeypatch.setattr(watching.time, "sleep", sleep)
        monkeypatch.setattr(watching, "_is_finished", lambda plan: len(self.waits) >= 2)

    def test_new_ones_are_evaluated_until_the_run_is_finished(self, evals: Call, child: Child) -> None:
        done = evals("run", RUN, *TASK, "--watch", "--watch-every", 7)
        assert (done.returncode, self.waits, child.steps) == (0, [7, 7], [*STEPS, 400])
        assert done.stdout.splitlines()[-1] == f"{RUN} is finished, and evaluated"

    def test_again_is_once(self, evals: Call, child: Child) -> None:
        evals("run", RUN, *TASK)
        evals("run", RUN, *TASK, "--watch", "--again")
        assert child.steps == [*STEPS, *STEPS, 400]

    def test_a_failed_one_is_not_tried_each_time(self, evals: Call, child: Child) -> None:
        child.codes = {200: 1}
        done = evals("run", RUN, *TASK, "--watch")
        assert (done.returncode, child.steps) == (1, [*STEPS, 400])
        assert f"failed: {RUN}@200 hellaswag: it ends with 1" in done.stderr

    def test_a_script_is_told_to_come_back(self, evals: Call, child: Child, run: RunFolder) -> None:
        child.codes = {200: 1}
        assert evals("run", RUN, *TASK, "--come-back").returncode == 1
        assert evals("run", RUN, *TASK, "--come-back").returncode == 75
        self.waits = [0, 0]
        assert evals("run", RUN, *TASK, "--come-back").returncode == 0

    def test_a_run_without_checkpoints_is_waited_for(self, evals: Call, child: Child, run: RunFolder) -> None:
        run.checkpoints.rename(run.path / "later")
        done = evals("run", RUN, *TASK, "--watch")
        assert (done.returncode, child.steps) == (0, [400])
        assert f"{RUN} has no such checkpoint yet" in done.stdout


@pytest.fixture
def cluster(yard: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands: sbatch keeps its script, and squeue tells what the file `queue` says."""
    (yard / "bin").mkdir()
    (yard / "logs").mkdir()
    programs = {
        "sbatch": f'for last; do :; done\ncp "$last" {yard}/submitted\necho one >> {yard}/calls\necho 41',
        "squeue": f"cat {yard}/queue 2>/dev/null || true",
        "scancel": "",
    }
    for name, text in programs.items():
        (yard / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (yard / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{yard / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TRAINYARD_SUBMISSIONS", str(yard / "submissions"))
    return yard


@pytest.mark.slow
class TestArray:
    def test_each_task_evaluates_its_checkpoint(self, evals: Call, child: Child, cluster: Path) -> None:
        assert evals("run", RUN, "--tasks", "mine=hellaswag:items.jsonl", "--steps", "200").returncode == 0
        words = ("--tasks", "mine=hellaswag:items.jsonl", "--shots", 0, "--batch-size", 2, "--again")
        done = evals("run", RUN, *words, "--steps", "100,300", "--slurm", "array.slurm")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "wrote array.slurm, 2 checkpoints: tools/submit array.slurm\n"
        self.make_checkout(cluster)
        for number, step in ((0, "100"), (1, "300")):
            ran = self.start(cluster, cluster / "array.slurm", number)
            assert ran.returncode == 7
            assert (cluster / "words").read_text().split("\n")[:-1] == [
                "run", RUN, "--steps", step, *map(str, words[:2]), "--shots", "0", "--batch-size", "2", "--again",
                "of the site",
            ]  # fmt: skip
        assert "no task 2" in self.start(cluster, cluster / "array.slurm", 2).stderr
        assert "#SBATCH --array=0-1 " in (cluster / "array.slurm").read_text()
        assert child.steps == [200]

    def make_checkout(self, yard: Path) -> None:
        (yard / "tools").mkdir()
        (yard / "tools" / "evals").write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" "$TRAINYARD_VENV" > {yard}/words\nexit 7\n'
        )
        (yard / "tools" / "evals").chmod(0o755)
        (yard / "slurm" / "sites").mkdir(parents=True)
        (yard / "slurm" / "sites" / "here.sh").write_text('TRAINYARD_VENV="of the site"\n')

    def start(self, yard: Path, script: Path, number: int) -> "subprocess.CompletedProcess[str]":
        known = {"SLURM_SUBMIT_DIR": str(yard), "SLURM_ARRAY_TASK_ID": str(number), "TRAINYARD_SITE": "here"}
        environment = {**os.environ, **known}
        return subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)

    def test_it_is_submitted_once_and_its_evaluations_are_pending(
        self, evals: Call, child: Child, cluster: Path, run: RunFolder
    ) -> None:
        (cluster / "queue").write_text("41_[0-2] 41\n")
        done = evals("run", RUN, *TASK, "--slurm", "array.slurm", "--submit")
        assert done.returncode == 0, done.stderr
        assert "3 checkpoints: job 41 is submitted" in done.stdout
        assert [(each.step, each.state, each.job) for each in read_states(run)] == [
            (step, "pending", "41") for step in STEPS
        ]
        again = evals("run", RUN, *TASK, "--slurm", "array.slurm", "--submit")
        assert again.stdout == "nothing is left to evaluate; no script was written\n"
        assert f"{RUN}@100 hellaswag: job 41 is to do it" in again.stderr
        assert (cluster / "calls").read_text() == "one\n"

    def test_a_call_that_was_cut_submits_nothing_twice(
        self, evals: Call, child: Child, cluster: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (cluster / "queue").write_text("41_[0-2] 41\n")
        with monkeypatch.context() as cut:
            cut.setattr(job_array, "_announce", lambda *given: sys.exit(9))
            assert evals("run", RUN, *TASK, "--slurm", "array.slurm", "--submit").returncode == 9
        assert read_states(run) == []
        done = evals("run", RUN, *TASK, "--slurm", "array.slurm", "--submit")
        assert "3 checkpoints: job 41 was submitted already" in done.stdout
        assert [(each.step, each.state) for each in read_states(run)] == [(step, "pending") for step in STEPS]
        assert (cluster / "calls").read_text() == "one\n"

    def test_a_task_of_the_array_makes_what_is_pending(
        self, evals: Call, child: Child, cluster: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (cluster / "queue").write_text("41_[0-2] 41\n")
        announce(run, 100, "hellaswag", 41)
        assert evals("run", RUN, "--steps", 100, *TASK).returncode == 0
        assert list_evaluations(run, []) == []
        for name, value in {"ARRAY_JOB_ID": "41", "ARRAY_TASK_ID": "0", "JOB_ID": "42"}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        assert evals("run", RUN, "--steps", 100, *TASK).returncode == 0
        assert [each.step for each in list_evaluations(run, [])] == [100]
        assert read_states(run) == []

    def test_outside_of_a_checkout(self, evals: Call, child: Child, cluster: Path, run: RunFolder) -> None:
        (cluster / "logs").rmdir()
        done = evals("run", RUN, *TASK, "--slurm", "array.slurm", "--submit")
        assert done.returncode == 2
        assert "logs/" in done.stderr
        assert not (cluster / "array.slurm").exists()
        assert read_states(run) == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            {"acc": Metric(value=0.5), "acc_norm": Metric(value=0.25, standard_error=0.0043)},
            "acc_norm 0.2500 +- 0.0043",
        ),
        ({"loss": Metric(value=3.0), "perplexity": Metric(value=20.0)}, "perplexity 20.0000"),
        ({"odd": Metric(value=1.0)}, "odd 1.0000"),
        ({}, "no number"),
    ],
)
def test_the_metric_that_is_shown(metrics: dict[str, Metric], said: str) -> None:
    assert one_child.shown_metric(metrics) == said


@pytest.mark.slow
def test_the_whole_path(small_data: SmallData, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checkpoints, two tasks through an export and one in the engine, by the executable."""
    config = small_run(small_data, places, data__sequence_length=64, evaluation__samples=2)
    for step in (4, 8):
        save_random(places / "runs", config, step=step, validation_loss=3.0 - step / 10)
    items = [{**HELLASWAG, "ind": number, "label": number % 4} for number in range(6)]
    (places / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (places / "plain.txt").write_text("abc def abc\n" * 20)
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    tasks = "hellaswag:items.jsonl,perplexity:plain.txt,validation"
    command = [CHECKOUT / "tools" / "evals", "run", RUN, "--tasks", tasks, "--limit", "4"]
    done = subprocess.run(command, env=environment, cwd=places, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = RunFolder(places / "runs" / RUN)
    labels = ["hellaswag.limit-4", "perplexity.limit-4", "validation.limit-4"]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"{RUN}@{step} {label}" for step in (4, 8) for label in labels
    ]
    problems: list[str] = []
    for evaluation in list_evaluations(run, problems):
        assert is_sealed(evaluation)
        assert {label: result.through for label, result in evaluation.results.items()} == {
            "hellaswag.limit-4": "export", "perplexity.limit-4": "export", "validation.limit-4": "engine",
        }  # fmt: skip
        manifest = read_manifest(run.checkpoints / checkpoint_name(evaluation.step) / MANIFEST)
        assert {result.checkpoint for result in evaluation.results.values()} == {manifest.id}
    assert problems == []
    assert not run.exports.exists() or list(run.exports.iterdir()) == []
    assert read_states(run) == []
    assert list(run.tensorboard.rglob("events*")) != []


def test_where_a_run_cannot_be_written_to_it_is_named(
    evals: Call, child: Child, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(this_machine, "announce", full)
    done = evals("run", RUN, *TASK)
    assert done.returncode == 2
    assert f"{run.path}: what is evaluated cannot be written there (No space left on device); make room" in done.stderr
    assert child.steps == []
