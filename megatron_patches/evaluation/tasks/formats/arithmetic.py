"""281 questions of arithmetic, asked as a chat whose answer has begun."""

from collections.abc import Iterator
from random import Random

from megatron_patches.evaluation.tasks.formats.gsm8k import written_numbers
from megatron_patches.evaluation.tasks.formats.local_format import (
    PART,
    Document,
    LocalFormat,
    Questions,
    ReadSource,
    Source,
)
from megatron_patches.evaluation.tasks.formats.number_answers import flexible

_SEED = 42
_OF_EACH = 100


def _probe(part: str, a: int, word: str, b: int, number: int) -> Document:
    prompt = f"User: What is {a} {word} {b}?\nAssistant: The answer is"
    return {"query": prompt, "answer": str(number), "number": str(number), PART: part}


def _probes() -> Iterator[Document]:
    """The table first; then products of two digits and one, and sums, each drawn from the seed again."""
    for a in range(1, 10):
        for b in range(1, 10):
            yield _probe("mul_table", a, "times", b, a * b)
    draw = Random(_SEED)
    for _ in range(_OF_EACH):
        a, b = draw.randint(10, 99), draw.randint(2, 9)
        yield _probe("mul_multidigit", a, "times", b, a * b)
    draw = Random(_SEED)
    for _ in range(_OF_EACH):
        a, b = draw.randint(1, 100), draw.randint(1, 100)
        yield _probe("addition", a, "plus", b, a + b)


def _read(source: Source) -> ReadSource:
    return ReadSource(Questions(list(_probes())))


ARITHMETIC = LocalFormat(
    "arithmetic", "1.0", None, "no file: 81 products of the table, 100 of two digits and one, 100 sums",
    "as a chat whose answer has begun; the last number of the answer counts", "What is 3 times 7?",
    ("exact_match",), written_numbers(32, [], {"none": flexible}), _read,
)  # fmt: skip
