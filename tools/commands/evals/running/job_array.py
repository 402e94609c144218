"""`tools/evals run --slurm`: the same as a job array, a task for each checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from megatron_patches.artefacts.evaluations.sealing import labels_in
from megatron_patches.artefacts.evaluations.shelf import evaluation_folder
from megatron_patches.artefacts.evaluations.states import announce, forget, read_states
from megatron_patches.atomic_files import write_atomically
from megatron_patches.checkout import runs_root
from megatron_patches.errors import Refused
from megatron_patches.evaluation.asked import Asked
from megatron_patches.evaluation.slurm_array import array_script
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted
from megatron_patches.submission.submit import submit
from slurm.job import ARRAY_LOG
from tools.commands.evals.running.plan import Plan, Work
from tools.terminal import remark, tell


def write_array(plan: Plan, file: Path, submits: bool) -> None:
    """Writes the script for what is missing and nobody is to make yet, and submits it if asked to.

    Raises:
        Refused: a job that is submitted here would find no folder for its logs.
        TrainyardError: as `Plan.look` does; or the submission fails, and the same call again is the remedy.
    """
    logs = Path(ARRAY_LOG).parent
    if submits and not logs.is_dir():
        raise Refused(f"jobs write to {logs}/, which is not here; call this in the checkout, which has it")
    work = list(_nobodys(plan))
    if not work:
        tell("nothing is left to evaluate; no script was written")
        return
    asked = plan.asked
    steps = [each.candidate.step for each in work]
    text = array_script(plan.run.name, words_of(asked), _named(plan), steps, asked.tensor * asked.pipeline)
    write_atomically(file, text.encode())
    tasks = counted(len(work), "checkpoint")
    if not submits:
        tell(f"wrote {printable(file)}, {tasks}: tools/submit {printable(file)}")
        return
    done = submit(file)
    for each in work:
        _announce(plan, each, done.job)
    there = "was submitted already" if done.was_there else "is submitted"
    tell(f"wrote {printable(file)}, {tasks}: job {done.job} {there} ({done.key})")


def _nobodys(plan: Plan) -> Iterator[Work]:
    taken = {(state.step, state.label): state for state in read_states(plan.run) if state.state != "failed"}
    for each in plan.look():
        step = each.candidate.step
        others = [taken[step, label] for label in each.labels if (step, label) in taken]
        for state in others:
            doing = "is at work on it" if state.state == "running" else "is to do it"
            remark(f"{plan.run.name}@{step} {state.label}: {state.describe()} {doing}")
        if labels := tuple(label for label in each.labels if (step, label) not in taken):
            yield Work(each.candidate, labels)


def _announce(plan: Plan, work: Work, job: int) -> None:
    """Says that the job is to do it, unless it has done so meanwhile."""
    step = work.candidate.step
    for label in work.labels:
        state = announce(plan.run, step, label, job)
        folder = evaluation_folder(plan.run, step)
        if state is not None and not plan.asked.again and is_folder(folder) and label in labels_in(folder):
            forget(plan.run, state)


def _named(plan: Plan) -> str:
    """The run as the job's command line names it."""
    path = plan.run.path.absolute()
    return plan.run.name if path == (runs_root() / plan.run.name).absolute() else str(path)


def words_of(asked: Asked) -> Sequence[str]:
    """What is asked, as a command line says it."""
    words = [word for task in asked.tasks for word in ("--tasks", task)]
    values = {
        "--shots": asked.shots,
        "--limit": asked.limit,
        "--length": asked.length,
        "--through": asked.through,
        "--batch-size": asked.batch_size,
    }
    words += [word for option, value in values.items() if value is not None for word in (option, str(value))]
    sizes = {"--tensor-parallel": asked.tensor, "--pipeline-parallel": asked.pipeline}
    words += [word for option, size in sizes.items() if size > 1 for word in (option, str(size))]
    if (learning := asked.fine_tuning) is not None:
        settings = {name: value for name, value in asdict(learning).items() if name != "frozen"}
        words += [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        words += ["--frozen"] if learning.frozen else []
    flags = {"--keep-exports": asked.keep_exports, "--again": asked.again}
    return [*words, *(flag for flag, given in flags.items() if given)]
