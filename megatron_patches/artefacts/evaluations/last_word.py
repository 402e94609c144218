"""What was said last of an evaluation, valid or invalid: `.status.json` beside its manifest.

A manifest is made again with each result, so that who read it before would overwrite a mark that is in it alone.
Whoever marks an evaluation writes this file first, and whoever writes the manifest looks at it afterwards: so the mark
is in the manifest in the end, whichever of them writes last. Moving the folder takes it along.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_patches.artefacts.manifest import Status
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.files import is_folder, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable

LAST_WORD = ".status.json"
_BYTES = 1 << 20


class _Word(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    checkpoints: list[str]
    """ids of what was evaluated; another checkpoint's evaluation may come to have the folder"""
    status: Status


def say(folder: Path, checkpoints: Sequence[str], status: Status) -> None:
    """Puts a word on record, in place of the one before.

    Args:
        checkpoints: ids of what was evaluated.
        status: its cause is None where the fault is the evaluation's own: the id changes with each result.

    Raises:
        Refused: a folder lies where it is written.
        OSError: as writing does.
    """
    path = folder / LAST_WORD
    if is_folder(path) and not path.is_symlink():
        raise Refused(f"{printable(path)} is a folder, where a file is written; move it away")
    word = _Word(checkpoints=list(checkpoints), status=status)
    write_atomically(path, (json.dumps(word.model_dump(), indent=1) + "\n").encode())


def last_word(folder: Path, checkpoints: Sequence[str]) -> Status | None:
    """What was said last of the evaluation of one of these checkpoints; None where nothing was.

    Raises:
        Damaged: the file is none of `say`.
        Refused: it is no plain file.
    """
    path = folder / LAST_WORD
    try:
        word = _Word.model_validate(parse_object(read_bounded(path, _BYTES), printable(path)))
    except Missing:
        return None
    except ValidationError:
        raise Damaged(
            f"{printable(path)} does not say whether the evaluation is valid; remove the file, and mark the evaluation "
            "again where it is not (tools/inventory invalidate)"
        ) from None
    return word.status if set(word.checkpoints) & set(checkpoints) else None
