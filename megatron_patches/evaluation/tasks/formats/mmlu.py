"""Questions of many subjects with four choices each: a file of rows, or the folder of CSV files as published."""

from collections.abc import Mapping
from pathlib import Path

from data_tools.reading.entries import Entry
from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.local_format import (
    CLUSTER,
    PART,
    Document,
    LocalFormat,
    Questions,
    ReadSource,
    Source,
)
from megatron_patches.evaluation.tasks.formats.mmlu_files import read_folder
from megatron_patches.evaluation.tasks.formats.rows import choice_in, read_rows, text_in, texts_in
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.names import NAME_RULE, is_name
from megatron_patches.foreign.printable import printable, shortened

_LETTERS = "ABCD"
_ABOUT = "The following are multiple choice questions (with answers) about {}.\n\n"
_EXAMPLE = (
    '{"question": "Which bone is in the leg?", "subject": "anatomy", "choices": ["ulna", "tibia", "skull", "rib"], '
    '"answer": 1}'
)


def _subject(row: Entry) -> str:
    subject = text_in(row, "subject")
    if not is_name(subject):
        raise TrainyardError(
            f"{row.where}: '{shortened(subject, 60)}' cannot name a subject, as abstract_algebra can: {NAME_RULE}"
        )
    return subject


def _document(row: Entry, subject: str) -> Document:
    choices = texts_in(row, "choices", 4, 4, may_be_empty=True)  # as a few are that were published
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True))
    return {
        "query": f"{text_in(row, 'question').strip()}{listed}\nAnswer:",
        "gold": choice_in(row, "answer", 4, _LETTERS),
        PART: subject,
        CLUSTER: subject,
    }


def _by_subject(rows: list[Entry]) -> dict[str, list[Document]]:
    found = dict[str, list[Document]]()
    for row in rows:
        subject = _subject(row)
        found.setdefault(subject, []).append(_document(row, subject))
    return found


def _file(path: Path) -> tuple[dict[str, list[Document]], DataFile]:
    file = read_rows(path, ("question", "subject", "choices", "answer"))
    return _by_subject(file.rows), file.data


def _read(source: Source) -> ReadSource:
    assert source.path is not None, "a format with files"
    if not is_folder(source.path):
        asked, data = _file(source.path)
        solved, *more = _file(source.examples) if source.examples is not None else (dict[str, list[Document]](),)
        return _asked(asked, solved, (data, *more))
    if source.examples is not None:
        raise Refused(
            f"{printable(source.path)} is a folder, which has solved items in dev/; leave out "
            f"+{printable(source.examples)}"
        )
    folder = read_folder(source.path)
    return _asked(_by_subject(folder.asked), _by_subject(folder.solved), folder.data)


def _asked(
    asked: Mapping[str, list[Document]], solved: Mapping[str, list[Document]], data: tuple[DataFile, ...]
) -> ReadSource:
    questions = {
        subject: Questions(asked[subject], solved.get(subject, []), _ABOUT.format(subject.replace("_", " ")))
        for subject in sorted(asked)
    }
    return ReadSource(questions, data, {"acc": 0.25})


MMLU = LocalFormat(
    "mmlu", "1.0", "FILE or FOLDER",
    "question, subject, choices (four), answer (0 to 3, or A to D); or the published folder, with "
    "test/SUBJECT_test.csv and, for --shots, dev/SUBJECT_dev.csv",
    "as lm-eval asks mmlu, with a result for each subject",
    _EXAMPLE, ("acc",),
    {
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": list(_LETTERS),
        "doc_to_target": "gold",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    _read, takes_shots=True,
)  # fmt: skip
