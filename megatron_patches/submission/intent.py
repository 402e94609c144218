"""Intents: what is to be submitted, on the disk before anything is, and the job that came of it.

A key's folder holds a folder for each time that it was begun, `0001` ...; the highest number counts. In it lie
`intent.json` and a folder named by the intent's token, with the script that is submitted and the record, `job`. A token
is drawn for one intent: a job of an earlier one, however late it starts, finds its record closed or gone.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.atomic_files import HashingWriter, create_once, fsync_folder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Damaged, Missing
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.json_text import number_of, parse_object
from megatron_patches.foreign.names import check_name, is_name
from megatron_patches.foreign.printable import printable
from megatron_patches.submission.fence import RECORD, WITHDRAWN, fenced, read_script

INTENT = "intent.json"
_FORGOTTEN = "forgotten-"
_NUMBER = re.compile(r"[0-9]{4,9}")
_TOKEN = re.compile(r"[0-9a-f]{32}")
_JOB = re.compile(r"[1-9][0-9]{0,17}")
_INTENT_BYTES = 1 << 20
_RECORD_BYTES = 100
_REMEDY = "look with squeue whether its job is there, then remove the folder"


def submissions_root() -> Path:
    """Folder of all intents: `$TRAINYARD_SUBMISSIONS` (a relative one counts from the checkout), else
    `slurm/submissions`; all nodes must see it.
    """
    return CHECKOUT / (os.environ.get("TRAINYARD_SUBMISSIONS") or "slurm/submissions")


@dataclass(frozen=True)
class Command:
    """What is submitted."""

    script: str
    """absolute path"""
    arguments: tuple[str, ...]
    """of the script"""
    options: tuple[str, ...]
    """of sbatch"""
    folder: str
    """absolute path of the folder where sbatch is called"""


@dataclass(frozen=True)
class Intent:
    """One intent on the disk."""

    key: str
    command: Command
    token: str
    """random, 32 hexadecimal digits"""
    time: float
    """when it was written, seconds since 1970"""
    folder: Path
    """`SUBMISSIONS/KEY/NUMBER`"""

    @property
    def place(self) -> Path:
        """Folder of the submitted script and of the record."""
        return self.folder / self.token

    @property
    def script(self) -> Path:
        """What sbatch gets: the script with its fence, under its own name, from which the job's name comes."""
        return self.place / Path(self.command.script).name

    def job(self) -> int | None:
        """Id of the job that works; None where none is known, or none may.

        Raises:
            Damaged: the record holds neither.
        """
        held = self._record()
        return None if held in (None, WITHDRAWN) else int(held or "")

    def is_withdrawn(self) -> bool:
        """Whether no job of this intent will ever work."""
        return self._record() == WITHDRAWN

    def record(self, job: int) -> None:
        """This job works, unless another one was recorded or the intent withdrawn."""
        create_once(self.place / RECORD, f"{job}\n".encode())

    def close(self) -> bool:
        """From now on no job of it works; False where one was recorded."""
        return create_once(self.place / RECORD, f"{WITHDRAWN}\n".encode()) or self.is_withdrawn()

    def _record(self) -> str | None:
        path = self.place / RECORD
        try:
            held = read_bounded(path, _RECORD_BYTES).decode(errors="replace").strip()
        except Missing:
            return None
        if held != WITHDRAWN and not _JOB.fullmatch(held):
            raise Damaged(f"{printable(path)} names no job; {_REMEDY} {printable(self.folder.parent)}")
        return held


def key_folder(root: Path, key: str) -> Path:
    """Folder of a key.

    Raises:
        TrainyardError: the key cannot be a folder's name.
    """
    return root / check_name(key, "a submission (its key)")


def current_intent(root: Path, key: str) -> Intent | None:
    """The intent that counts; None where there is none.

    Raises:
        Damaged: it cannot be read.
    """
    folder = key_folder(root, key)
    numbers = _numbers(folder)
    return _read(folder / f"{numbers[-1]:04}", key) if numbers else None


def begin_intent(root: Path, key: str, command: Command) -> tuple[Intent, bool]:
    """A new intent, whole and on the disk; with False the one of another process that was quicker.

    Raises:
        TrainyardError: the script cannot be submitted.
        OSError: the disk is full, or the folder cannot be written to; nothing was begun.
    """
    folder = key_folder(root, key)
    text = read_script(Path(command.script))
    folder.mkdir(parents=True, exist_ok=True)
    former = _numbers(folder)
    target = folder / f"{(former[-1] if former else 0) + 1:04}"
    token = secrets.token_hex(16)
    intent = Intent(key, command, token, time.time(), target)
    draft = folder / f"draft-{token}"
    (draft / token).mkdir(parents=True)
    try:
        _write(draft / token / intent.script.name, fenced(text, key, folder, intent.place))
        _write(draft / INTENT, json.dumps(_facts(intent), indent=2).encode())
        fsync_folder(draft / token)
        fsync_folder(draft)
        draft.rename(target)  # fails where another one has the number: a folder is replaced only while it is empty
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        found = current_intent(root, key)
        if found is None or found.folder != target:
            raise
        return found, False
    fsync_folder(folder)
    fsync_folder(root)
    _remove_withdrawn([folder / f"{number:04}" for number in former])  # else nothing were begun
    return intent, True


def _remove_withdrawn(folders: Sequence[Path]) -> None:
    """Removes intents, each under another name first.

    A removal that is cut may have taken the record alone, and a job that comes late would claim a place without one.
    """
    for each in folders:
        with suppress(OSError):  # it stays, and says that it is withdrawn
            shutil.rmtree(each.rename(each.with_name(f"{_FORGOTTEN}{each.name}-{secrets.token_hex(16)}")))


def forget(intent: Intent) -> None:
    """Removes an intent; jobs of it that have not started do nothing. The key's folder goes by `clear`."""
    intent.folder.rename(intent.folder.with_name(f"{_FORGOTTEN}{intent.token}"))


def clear(root: Path, key: str) -> bool:
    """Removes a key that has no intent, with what killed calls left there; whether there was one.

    An intent that another process has begun in the meantime stays.
    """
    folder = key_folder(root, key)
    if not is_folder(folder):
        return False
    for name in names_in(folder):
        if not _NUMBER.fullmatch(name):
            shutil.rmtree(folder / name)
    with suppress(OSError):  # an intent is there
        folder.rmdir()
    return True


def all_intents(root: Path) -> Iterator[Intent | Damaged]:
    """The intent that counts of each key, by name; what cannot be read comes as its error."""
    for key in names_in(root):
        if is_name(key) and is_folder(root / key):
            try:
                found = current_intent(root, key)
                if found is not None:
                    found.job()
                    yield found
            except Damaged as error:
                yield error


def _numbers(folder: Path) -> list[int]:
    return sorted(int(name) for name in names_in(folder) if _NUMBER.fullmatch(name))


def _write(path: Path, content: bytes) -> None:
    with HashingWriter(path) as writer:
        writer.write(content)


def _facts(intent: Intent) -> dict[str, Any]:
    command = intent.command
    return {
        "token": intent.token,
        "time": intent.time,
        "script": command.script,
        "arguments": command.arguments,
        "options": command.options,
        "folder": command.folder,
    }


def _read(folder: Path, key: str) -> Intent:
    path = folder / INTENT
    remedy = f"{_REMEDY} {printable(folder.parent)}"
    try:
        facts = parse_object(read_bounded(path, _INTENT_BYTES), printable(path), keep_surrogates=True)
    except (Missing, Damaged) as error:
        raise Damaged(f"{error}; {remedy}") from None
    texts = [facts.get("script"), facts.get("folder"), *_listed(facts, "arguments"), *_listed(facts, "options")]
    token, written = facts.get("token"), number_of(facts.get("time"))
    known = written is not None and isinstance(token, str) and _TOKEN.fullmatch(token)
    if not known or not all(isinstance(each, str) and "\0" not in each for each in texts):
        raise Damaged(f"{printable(path)} is no intent of a submission; {remedy}")
    command = Command(facts["script"], tuple(facts["arguments"]), tuple(facts["options"]), facts["folder"])
    assert isinstance(token, str) and written is not None
    return Intent(key, command, token, written, folder)


def _listed(facts: dict[str, Any], name: str) -> list[Any]:
    """The items of a list; of anything else one that is no text."""
    found = facts.get(name)
    return found if isinstance(found, list) else [None]
