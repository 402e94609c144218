"""Unfinished work: whether it is that of the same request, and what becomes of it if not."""

from collections.abc import Callable, Mapping

from pydantic import JsonValue

from data_tools.datasets.preprocessing.notes import Note
from data_tools.datasets.preprocessing.tokenizing import new_reading
from data_tools.datasets.preprocessing.work_folder import WorkFolder
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

_STAGES = {"scatter": "being shuffled", "order": "being shuffled", "publish": "finished but for the names"}


def begun(asked: dict[str, JsonValue], keys: int) -> Note:
    """The note of a request of which nothing is done."""
    return Note(asked=asked, reading=new_reading(keys), part_began=new_reading(keys))


def taken_up(
    work: WorkFolder, asked: Mapping[str, JsonValue], overwrite: bool, tell: Callable[[str], None]
) -> Note | None:
    """Where to go on; None to start from the beginning.

    Raises:
        Damaged: the journal cannot be read.
        Refused: there is work of another request, or of files that have changed since, and nobody said to drop it.
    """
    try:
        note = work.read_note()
    except Damaged as error:
        if not overwrite:
            raise
        tell(f"note: {error}; it is removed")
        return None
    if note is None:
        return None
    done = f"{counted(note.reading.documents, 'document')} tokenized"
    changed = [name for name, value in asked.items() if note.asked.get(name) != value]
    if not changed:
        stage = _STAGES.get(note.stage)
        tell(f"note: continuing {printable(work.path)}: {done}{f', {stage}' if stage else ''}")
        return note
    named = f"{printable(work.path)} holds unfinished work ({done}, {work.size() / 1e6:,.1f} MB)"
    differs = " and ".join(changed)
    if not overwrite:
        raise Refused(
            f"{named} of another request: {differs} changed since. Repeat the earlier command to go on with it, or add "
            "--overwrite to drop it and start from the beginning"
        )
    tell(f"note: {named} of another request ({differs} changed since); it is removed, work starts from the beginning")
    return None
