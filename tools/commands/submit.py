"""`tools/submit`: sbatch that may be repeated after a cut connection."""

import time
from pathlib import Path

import typer

from tools.command_line import run_app
from tools.terminal import remark, tell

app = typer.Typer(add_completion=False)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def main(
    words: list[str] = typer.Argument(None, help="Options of sbatch, the job script, and the script's own arguments."),
    key: str | None = typer.Option(
        None, help="What this submission is; the same key never submits twice [default: made of the whole command]."
    ),
    show: bool = typer.Option(False, "--list", help="Show the submissions that are known, and their jobs."),
    withdraw: str | None = typer.Option(
        None, metavar="KEY", help="Take a submission back: its job leaves the queue if it has not started."
    ),
) -> None:
    """Submit a job script so that the same command may be given again: it never leads to a second working job.

    Use it where a connection may break, or in scripts that are started again. The command is written down before sbatch
    is called; given again, it finds the job that it made. A job that got into the queue twice all the same says so when
    it starts, and ends. To submit the same a second time on purpose, name another --key, or withdraw the first.

    tools/submit --nodes=2 train/tr3-1B3-baseline/tr3d-1B3-more-warmup.slurm --training.steps 1000
    """
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import printable
    from megatron_patches.submission.submit import submit

    if sum([bool(words), show, withdraw is not None]) != 1:
        raise TrainyardError("name a job script, or one of --list and --withdraw KEY; tools/submit --help says how")
    if show:
        _list()
        return
    if withdraw is not None:
        _withdraw(withdraw)
        return
    options, script, arguments = _parts(words)
    done = submit(script, arguments, options, key)
    if done.said:
        remark(done.said, layout=True)
    made = f", made {_age(done.time)} ago" if done.was_there else ""
    tell(f"job {done.job} {'was submitted already' if done.was_there else 'is submitted'}: {printable(done.key)}{made}")


def _parts(words: list[str]) -> "tuple[list[str], Path, list[str]]":
    """Options of sbatch stand before the script, each one word; what stands behind it is the script's."""
    from megatron_patches.errors import TrainyardError

    place = next((number for number, word in enumerate(words) if not word.startswith("-")), None)
    if place is None:
        raise TrainyardError("no job script is named; options of sbatch are one word each: --nodes=2, -N2")
    return words[:place], Path(words[place]), words[place + 1 :]


def _list() -> None:
    from megatron_patches.errors import TrainyardError
    from megatron_patches.submission.intent import Intent, all_intents, submissions_root
    from megatron_patches.submission.queue import states_of_jobs
    from tools.tables import print_table

    found = list(all_intents(submissions_root()))
    states: dict[int, str] = {}
    try:
        states = states_of_jobs()
    except (TrainyardError, OSError) as error:
        remark(f"the jobs' states are not known: {error}")
    rows = []
    for each in found:
        if not isinstance(each, Intent):
            remark(f"passed over: {each}")
            continue
        job = each.job()
        state = "not in the queue" if job is None else states.get(job, "not in the queue").lower()
        word = "withdrawn" if each.is_withdrawn() else "" if job is None else str(job)
        rows.append([each.key, word, state, f"{_age(each.time)} ago", each.command.script])
    if not rows:
        tell("no submission is known")
        return
    print_table(["key", "job", "state", "made", "script"], rows)


def _withdraw(key: str) -> None:
    from megatron_patches.submission.submit import withdraw

    job = withdraw(key)
    tell(f"{key} is withdrawn" + (f"; its job was {job}" if job else "; it had no job"))


def _age(then: float) -> str:
    from megatron_patches.sizes import counted

    seconds = max(0, round(time.time() - then))
    for size, one in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return counted(seconds // size, one)
    return counted(seconds, "second")


if __name__ == "__main__":
    run_app(app, "submit")
