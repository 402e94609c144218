"""A task as a command line names it: `[NAME=]WORD[:SOURCE]`."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_patches.artefacts.evaluations.result import is_label
from megatron_patches.errors import Missing, Refused
from megatron_patches.evaluation.tasks.formats.all_formats import ENCODER_FORMATS, LOCAL_FORMATS
from megatron_patches.evaluation.tasks.harness_names import harness_names, nearest_names
from megatron_patches.foreign.names import NAME_RULE, is_unicode
from megatron_patches.foreign.printable import shortened

VALIDATION, DATASET = "validation", "dataset"
LOSSES = {VALIDATION: "validation or validation:GROUP", DATASET: "dataset:PREFIX"}
"""words of losses that the engine computes, and how they are written"""
_SEE = "`tools/evals tasks` lists the formats"


@dataclass(frozen=True)
class TaskSpec:
    """A task that has a name and a known word; its source has not been looked at."""

    name: str
    """of its results"""
    word: str
    source: str | None = None
    """a file, a folder, a group or a prefix, as the word takes it"""

    @property
    def is_local(self) -> bool:
        """Whether one of our formats reads it; `hellaswag` alone is a task of the harness."""
        format = LOCAL_FORMATS.get(self.word)
        return format is not None and (self.source is not None or format.source is None)

    @property
    def is_loss(self) -> bool:
        """Whether the engine computes it."""
        return self.word in LOSSES

    @property
    def is_of_encoders(self) -> bool:
        """Whether encoders alone are asked it."""
        return self.word in ENCODER_FORMATS

    @property
    def is_asked_by_lm_eval(self) -> bool:
        """Whether the harness asks it."""
        return not (self.is_loss or self.is_of_encoders)


def parse_task(text: str) -> TaskSpec:
    """Reads `[NAME=]WORD[:SOURCE]`.

    The names of the harness are looked up where the word is none of ours.

    Raises:
        Missing: there is no such word; tells the nearest.
        Refused: a source is missing, or there is one too many; or the name cannot be one.
    """
    given = shortened(text)
    if not text or not is_unicode(text):
        raise Refused(f"--tasks '{given}' names no task; {_SEE}")
    head, colon, source = text.partition(":")
    name, equals, word = head.rpartition("=")
    _check_source(given, word, source if colon else None)
    if not equals:
        name = f"{word}-{source}" if word == VALIDATION and colon else word
    if not is_label(name):
        remedy = "" if equals else f"; put one in front, as in NAME={given}"
        raise Refused(f"--tasks '{given}': '{shortened(name)}' cannot name a result: {NAME_RULE}{remedy}")
    return TaskSpec(name, word, source if colon else None)


def split_tasks(texts: Sequence[str]) -> list[TaskSpec]:
    """The tasks of several options, each of which may name several with commas between them.

    Raises:
        TrainyardError: as `parse_task`, or two of them have one name.
    """
    specs = [parse_task(each.strip()) for text in texts for each in text.split(",")]
    names = [spec.name for spec in specs]
    for spec in specs:
        if names.count(spec.name) > 1:
            raise Refused(
                f"two tasks have the name {spec.name}, and so would their results; give one of them another, as in "
                f"--tasks OTHER={spec.word}{'' if spec.source is None else ':' + shortened(spec.source)}"
            )
    return specs


def _check_source(given: str, word: str, source: str | None) -> None:
    if word in LOSSES:
        if source == "" or (source is None and word == DATASET):
            raise Refused(
                f"--tasks '{given}' names no {'dataset' if word == DATASET else 'group'}; write {LOSSES[word]}"
            )
    elif (format := LOCAL_FORMATS.get(word) or ENCODER_FORMATS.get(word)) is not None:
        _check_file(given, word, format.source, source)
    elif source is not None:
        nearest = _nearest(word, [*LOCAL_FORMATS, *ENCODER_FORMATS, *LOSSES])
        raise Missing(f"--tasks '{given}': no format '{shortened(word, 60)}' of local files{nearest}; {_SEE}")
    elif word not in harness_names():
        known = [*LOCAL_FORMATS, *ENCODER_FORMATS, *LOSSES, *harness_names()]
        raise Missing(f"--tasks '{given}': no task '{shortened(word, 60)}'{_nearest(word, known)}; {_SEE}")


def _check_file(given: str, word: str, takes: str | None, source: str | None) -> None:
    if takes is None and source is not None:
        raise Refused(f"--tasks '{given}': {word} has no file; write {word} alone")
    if takes is not None and source == "":
        raise Refused(f"--tasks '{given}' names no file; write {word}:{takes}")
    if takes is not None and source is None and word not in harness_names():
        raise Refused(f"--tasks '{given}' needs a file; write {word}:{takes}")


def _nearest(word: str, known: Sequence[str]) -> str:
    found = nearest_names(word, known)
    return f" (the nearest: {', '.join(found)})" if found else ""
