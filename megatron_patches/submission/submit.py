"""The one way in which Trainyard submits: called again after a cut, it leads to one job that works.

The intent is on the disk before sbatch is called. Which job works is decided by one file, the record, that the
submitter makes with sbatch's answer and every job at its start with its own id: the first one counts. So a killed
submitter, an answer that is lost and a controller that takes a request long after nobody waits for it make at most jobs
that start, say that they are doubles, and end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.submission.fence import read_script
from megatron_patches.submission.intent import (
    Command,
    Intent,
    begin_intent,
    clear,
    current_intent,
    forget,
    submissions_root,
)
from megatron_patches.submission.queue import (
    PENDING,
    Answer,
    QueueUnknown,
    cancel_pending,
    jobs_in_queue,
    require_slurm,
    sbatch,
)

_LATER = "call the same again, which submits nothing twice"

_OTHERWISE = {
    "--wrap": "write the command into a script",
    "--parsable": "leave it out: the job's id is told anyway",
    "--test-only": "call sbatch itself, which submits nothing then",
    "--wait": "leave it out: a submission ends once the job is in the queue",
    "-W": "leave it out: a submission ends once the job is in the queue",
    "--clusters": "export SLURM_CLUSTERS=NAME instead, which squeue reads too",
    "-M": "export SLURM_CLUSTERS=NAME instead, which squeue reads too",
}
"""options of sbatch that a submission cannot pass on, with the remedy"""


@dataclass(frozen=True)
class Submission:
    """A job that works, or will."""

    key: str
    job: int
    """its id; of an array the one of the whole"""
    was_there: bool
    """whether an earlier call had brought it into the queue"""
    time: float
    """when its intent was written, seconds since 1970"""
    said: str = ""
    """what sbatch remarked"""


def submit(
    script: Path,
    arguments: Sequence[str] = (),
    options: Sequence[str] = (),
    key: str | None = None,
    folder: Path | None = None,
) -> Submission:
    """Brings a job script into SLURM's queue, once for each key.

    Args:
        script: of a POSIX shell; a copy of it, made at the first call, is what runs.
        arguments: of the script.
        options: of sbatch, each one word (`--nodes=2`, `-N2`).
        key: what this submission is; the same key never submits a second time. By default the script with its content,
            its arguments, the options and the folder.
        folder: where sbatch is called, and the job begins; by default the current one.

    Raises:
        QueueUnknown: whether the job is there cannot be said now; nothing was submitted by this call, or sbatch gave no
            clear answer. The same call again is the remedy.
        Refused: sbatch refuses the job, and its intent is withdrawn; or the key is that of another command.
        Missing: there is no such script, or no SLURM.
        Damaged: the intent or its record cannot be read.
    """
    _check_options(options)
    here = (folder or Path.cwd()).absolute()
    command = Command(str(here / script), tuple(arguments), tuple(options), str(here))
    require_slurm()
    root = submissions_root()
    key = usual_key(command) if key is None else key
    intent, new = _intent(root, key, command)
    if job := intent.job():
        return Submission(key, job, True, intent.time)
    if not new:
        try:
            found = jobs_in_queue(intent.token)
        except QueueUnknown as error:
            raise QueueUnknown(f"{error}: whether {key} is in the queue is not known; {_LATER}") from None
        if found or intent.job():
            return _settled(intent, found, True)
    answer = sbatch(intent)
    if answer.job is not None:
        return _settled(intent, {answer.job: ""}, False, answer.said)
    return _without_answer(intent, answer)


def usual_key(command: Command) -> str:
    """Key of a submission for which none was given: the script's name, and a hash of all that makes the command.

    Raises:
        TrainyardError: the script cannot be read.
    """
    script = Path(command.script)
    digest = hashlib.sha256(read_script(script))
    for words in ((command.script, command.folder), command.arguments, command.options):
        digest.update(repr(words).encode(errors="surrogateescape"))
    return f"{_readable(script.stem)}-{digest.hexdigest()[:12]}"


def withdraw(key: str) -> int | None:
    """Takes a submission back: its job, if it has not started, leaves the queue, and the key is free.

    Returns:
        The recorded job; None where there was none.

    Raises:
        Missing: there is no such submission.
        QueueUnknown: SLURM does not answer; the key stays, and a job that was not recorded will do nothing.
        TrainyardError: a pending job cannot be cancelled; the key stays.
    """
    root = submissions_root()
    intent = current_intent(root, key)
    if intent is None:
        if clear(root, key):  # a withdrawal was cut
            return None
        raise Missing(f"there is no submission {printable(key)} in {printable(root)}; tools/submit --list shows all")
    intent.close()
    try:
        found = jobs_in_queue(intent.token)
    except QueueUnknown as error:
        raise QueueUnknown(f"{error}: {key} stays until it does; withdraw it again") from None
    cancel_pending([job for job, state in found.items() if state == PENDING])
    job = intent.job()
    forget(intent)
    clear(root, key)
    return job


def _intent(root: Path, key: str, command: Command) -> tuple[Intent, bool]:
    """The intent of a key, and whether it was begun by this call."""
    intent, new = current_intent(root, key), False
    if intent is None or intent.is_withdrawn():
        intent, new = begin_intent(root, key, command)
    if intent.command != command:
        raise Refused(
            f"the key {key} is that of another submission, of {printable(intent.command.script)} with other words or "
            f"from another folder ({printable(intent.folder)}/intent.json); choose another key"
        )
    return intent, new


def _settled(intent: Intent, found: dict[int, str], was_there: bool, said: str = "") -> Submission:
    """Records one of the jobs that were found, unless one is recorded; a double of this call's own is cancelled.

    Others that were found are left to the fence: the parts of a heterogeneous job have several ids too.
    """
    if found:
        intent.record(min(found, key=lambda job: (found[job] in _GONE, job)))
    job = intent.job()
    if job is None:
        raise Refused(f"the submission {intent.key} was withdrawn in the meantime; its job does nothing")
    try:
        cancel_pending([] if was_there else [other for other in found if other != job])
    except TrainyardError as error:  # it does nothing when it starts
        said = f"{said}\n{error}".strip()
    return Submission(intent.key, job, was_there or job not in found, intent.time, said)


_GONE = {"CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "PREEMPTED"}


def _without_answer(intent: Intent, answer: Answer) -> Submission:
    """sbatch named no job: the queue says whether it took one all the same, as after an answer that came too late."""
    said = answer.said or "no message"
    try:
        found = jobs_in_queue(intent.token)
    except QueueUnknown as error:
        raise QueueUnknown(
            f"sbatch names no job (exit code {answer.code}: {said}), and {error}: whether it took {intent.key} is not "
            f"known; {_LATER}"
        ) from None
    if found or (answer.code and not intent.close()):
        return _settled(intent, found, False, said)
    if not answer.code:
        raise QueueUnknown(f"sbatch says that it went well and names no job: {said}; {_LATER}")
    raise Refused(f"sbatch does not take {printable(intent.command.script)}: {said}")


def _check_options(options: Sequence[str]) -> None:
    for option in options:
        name = option.partition("=")[0] if option.startswith("--") else option[:2]
        if name in _OTHERWISE:
            raise Refused(f"{printable(option)} cannot be an option of a submission; {_OTHERWISE[name]}")


def _readable(stem: str) -> str:
    """Part of a key that people recognise."""
    kept = "".join(each if each.isalnum() else "-" for each in stem[:40])
    return kept.encode("ascii", "replace").decode().replace("?", "-").lstrip("-") or "script"
