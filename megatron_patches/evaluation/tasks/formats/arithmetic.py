"""281 questions of arithmetic, asked as a chat whose answer has begun."""

from collections.abc import Iterable, Iterator
from random import Random

from megatron_patches.evaluation.tasks.formats.gsm8k import written_numbers
from megatron_patches.evaluation.tasks.formats.local_format import (
    PART,
    LocalFormat,
    Questions,
    ReadSource,
    Source,
)
from megatron_patches.evaluation.tasks.formats.number_answers import flexible

_SEED = 42
_OF_EACH = 100


def _questions(part: str, probes: Iterable[tuple[int, str, int, int]]) -> Questions:
    return Questions(
        [
            {
                "query": f"User: What is {a} {word} {b}?\nAssistant: The answer is",
                "answer": str(number),
                "number": str(number),
                PART: part,
            }
            for a, word, b, number in probes
        ]
    )


def _table() -> Iterator[tuple[int, str, int, int]]:
    yield from ((a, "times", b, a * b) for a in range(1, 10) for b in range(1, 10))


def _products() -> Iterator[tuple[int, str, int, int]]:
    draw = Random(_SEED)
    for _ in range(_OF_EACH):
        a, b = draw.randint(10, 99), draw.randint(2, 9)
        yield a, "times", b, a * b


def _sums() -> Iterator[tuple[int, str, int, int]]:
    draw = Random(_SEED)
    for _ in range(_OF_EACH):
        a, b = draw.randint(1, 100), draw.randint(1, 100)
        yield a, "plus", b, a + b


def _read(source: Source) -> ReadSource:
    parts = {"mul_table": _table(), "mul_multidigit": _products(), "addition": _sums()}
    return ReadSource({part: _questions(part, probes) for part, probes in parts.items()})


ARITHMETIC = LocalFormat(
    "arithmetic", "1.0", None, "no file: 81 products of the table, 100 of two digits and one, 100 sums",
    "as a chat whose answer has begun; the last number of the answer counts", "What is 3 times 7?",
    ("exact_match",), written_numbers(32, [], {"none": flexible}), _read,
)  # fmt: skip
