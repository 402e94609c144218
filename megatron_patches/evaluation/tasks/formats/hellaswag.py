"""Sentences and their endings, one of which is right: as lm-eval asks HellaSwag, and as GPT-2's reproductions do."""

import re
from collections.abc import Callable
from typing import Any

from data_tools.reading.entries import Entry
from megatron_patches.errors import TrainyardError
from megatron_patches.evaluation.tasks.formats.local_format import (
    CLUSTER,
    Document,
    LocalFormat,
    ReadSource,
    Source,
    chance_of_choices,
)
from megatron_patches.evaluation.tasks.formats.rows import choice_in, read_questions, text_in, texts_in

_MARKS = re.compile(r"\[.*?\]")
_MEAN = {"aggregation": "mean", "higher_is_better": True}
_OPTIONAL = ("ctx", "ctx_a", "ctx_b", "activity_label", "source_id")
_Ask = Callable[[Entry], tuple[str, list[str]]]
"""the beginning and the endings of a row"""
_EXAMPLE = (
    '{"activity_label": "Making tea", "ctx_a": "A woman fills a kettle.", "ctx_b": "she", "endings": ["boils it.", '
    '"eats it.", "reads it.", "sells it."], "label": 0}'
)
_ASKED = {
    "output_type": "multiple_choice",
    "doc_to_text": "query",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "target_delimiter": " ",
}


def _without_marks(text: str) -> str:
    """What lm-eval's own task makes of a text: marks of WikiHow's pages are taken out, double spaces once."""
    text = text.strip().replace(" [title]", ". ")
    return _MARKS.sub("", text).replace("  ", " ")


def _as_published(row: Entry) -> tuple[str, list[str]]:
    beginning = f"{text_in(row, 'ctx_a', may_be_empty=True)} {text_in(row, 'ctx_b', may_be_empty=True).capitalize()}"
    query = _without_marks(f"{text_in(row, 'activity_label')}: {beginning}")
    endings = [_without_marks(ending) for ending in texts_in(row, "endings", 2)]
    if not all(endings):
        raise TrainyardError(f"{row.where}: an ending is empty without its marks in brackets; correct the row")
    return query, endings


def _as_it_stands(row: Entry) -> tuple[str, list[str]]:
    if "ctx" in row.values:
        return text_in(row, "ctx"), texts_in(row, "endings", 2)
    if missing := [key for key in ("ctx_a", "ctx_b") if key not in row.values]:
        raise TrainyardError(f"{row.where}: no key 'ctx', and no {missing[0]!r} in its place; correct the row")
    pieces = (text_in(row, "ctx_a", may_be_empty=True), text_in(row, "ctx_b", may_be_empty=True))
    return " ".join(piece for piece in pieces if piece), texts_in(row, "endings", 2)


def _cluster(row: Entry) -> str | None:
    """Items of one source are alike: its video or page; where it is not named, its kind of activity."""
    named = next((row.values[key] for key in ("source_id", "activity_label") if row.values.get(key) is not None), None)
    return None if named is None else str(named)


def _document(row: Entry, asked: tuple[str, list[str]]) -> Document:
    query, choices = asked
    gold = choice_in(row, "label", len(choices))
    return {"query": query, "choices": choices, "gold": gold, CLUSTER: _cluster(row)}


def _format(
    word: str, row: str, manner: str, keys: tuple[str, ...], metrics: tuple[str, ...], ask: _Ask
) -> LocalFormat:
    of_harness = [metric for metric in metrics if metric != "acc_norm_token"]
    asked: dict[str, Any] = {**_ASKED, "metric_list": [{"metric": metric, **_MEAN} for metric in of_harness]}
    optional = [key for key in _OPTIONAL if key not in keys]

    def read(source: Source) -> ReadSource:
        questions, data = read_questions(source, keys, lambda row: _document(row, ask(row)), optional)
        counts = [len(document["choices"]) for document in questions.documents]
        return ReadSource(questions, data, chance_of_choices(counts, metrics))

    return LocalFormat(
        word, "1.0", "FILE", row, manner, _EXAMPLE, metrics, asked, read, takes_shots=True, by_token=True,
    )  # fmt: skip


HELLASWAG = _format(
    "hellaswag",
    "activity_label, ctx_a, ctx_b, endings, label; source_id if there is one",
    "as lm-eval asks hellaswag",
    ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
    ("acc", "acc_norm", "acc_norm_token"),
    _as_published,
)
HELLASWAG_PLAIN = _format(
    "hellaswag-plain",
    "ctx (or ctx_a and ctx_b), endings, label; source_id if there is one",
    "texts as they stand, as build-nanogpt asks them: its acc_norm is acc_norm_token here",
    ("endings", "label"),
    ("acc", "acc_norm_token"),
    _as_it_stands,
)
