"""Word problems whose answer is a number, as GSM8K writes them: solved in writing, from two prompts."""

from collections.abc import Callable
from typing import Any

from data_tools.reading.entries import Entry
from data_tools.records.record import Message
from data_tools.records.templates import PLAIN, PlainTemplate
from megatron_patches.errors import TrainyardError
from megatron_patches.evaluation.tasks.formats.local_format import Document, LocalFormat, ReadSource, Source
from megatron_patches.evaluation.tasks.formats.number_answers import (
    NOT_FOUND,
    exact_match,
    flexible,
    marked_number,
    strict,
)
from megatron_patches.evaluation.tasks.formats.rows import read_questions, text_in

_EXAMPLE = '{"question": "Ann has 2 pens and buys 3. How many has she?", "answer": "2 + 3 = 5\\n#### 5"}'
_ROW = "question, answer with its number after ####"
_SCORED = 'strict: the number after ####; flexible: else that of "the answer is", else the last one'
_METRICS = ("exact_match.strict", "exact_match.flexible")


def _as_question(question: str, where: str) -> str:
    return f"Question: {question}\nAnswer:"


def _as_chat(question: str, where: str) -> str:
    """What the plain template writes in front of an answer, and a model was trained on."""
    return PlainTemplate().segments([Message("user", question), Message("assistant", "")], where)[0].text


def _document(row: Entry, prompt: Callable[[str, str], str]) -> Document:
    question, answer = text_in(row, "question"), text_in(row, "answer")
    number = marked_number(answer)
    if number == NOT_FOUND:
        raise TrainyardError(f"{row.where}: 'answer' has no number after ####, as in '#### 5'; correct the row")
    return {"query": prompt(question, row.where), "answer": answer, "number": number}


def _reader(prompt: Callable[[str, str], str]) -> Callable[[Source], ReadSource]:
    def read(source: Source) -> ReadSource:
        questions, data = read_questions(source, ("question", "answer"), lambda row: _document(row, prompt))
        return ReadSource(questions, data)

    return read


def written_numbers(tokens: int, until: list[str], filters: dict[str, Callable[..., Any]]) -> dict[str, Any]:
    """The configuration of a task that is answered in writing by a number, greedily.

    Args:
        tokens: most of them that are written.
        until: texts that end an answer, beside the document's end.
        filters: by name, what finds the number in it.
    """
    return {
        "output_type": "generate_until",
        "doc_to_text": "query",
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "generation_kwargs": {"until": until, "do_sample": False, "temperature": 0.0, "max_gen_toks": tokens},
        "filter_list": [
            {"name": name, "filter": [{"function": "custom", "filter_fn": find}, {"function": "take_first"}]}
            for name, find in filters.items()
        ],
        "process_results": exact_match,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


_FOUND = {"strict": strict, "flexible": flexible}
GSM8K = LocalFormat(
    "gsm8k", "1.0", "FILE", _ROW, f"as lm-eval asks gsm8k; {_SCORED}", _EXAMPLE, _METRICS,
    written_numbers(256, ["Question:", "</s>", "<|im_end|>"], _FOUND), _reader(_as_question), takes_shots=True,
)  # fmt: skip
GSM8K_CHAT = LocalFormat(
    "gsm8k-chat", "1.0", "FILE", _ROW, f"as the plain chat template writes a question; {_SCORED}", _EXAMPLE, _METRICS,
    written_numbers(256, [PLAIN["user"].rstrip()], _FOUND), _reader(_as_chat),
)  # fmt: skip
