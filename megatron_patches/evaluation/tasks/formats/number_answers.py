"""Numbers that a model answers with: found in its text, and compared as numbers.

lm-eval calls these functions; this file is also copied beside the YAML files that name them, and imports nothing else.
Whoever changes what they find raises the versions of the formats that name them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

NOT_FOUND = "[no number]"
_MINUS = "\u2212"
"""the minus sign of typesetting"""
# a minus directly after a digit or a bracket is one of a calculation, a comma parts thousands or nothing, and the dots
# of an ellipsis begin no decimals
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = rf"(?:(?<![0-9)])[-+{_MINUS}])?\$?(?:{_WHOLE}(?:\.[0-9]+)?|(?<![0-9.])\.[0-9]+)"
_ANY = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*({_NUMBER})")
_SAID = re.compile(rf"[Tt]he answer is:?\s*({_NUMBER})")


def marked_number(text: str) -> str:
    """The number after the first `####` that has one."""
    found = _MARKED.search(text)
    return found[1] if found else NOT_FOUND


def final_number(text: str) -> str:
    """The number after `####`; else that of "the answer is"; else the last one of the text."""
    if found := _MARKED.search(text) or _SAID.search(text):
        return found[1]
    numbers = _ANY.findall(text)
    return numbers[-1] if numbers else NOT_FOUND


def strict(responses: Iterable[Sequence[str]], documents: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A filter of lm-eval: what `marked_number` finds in each response."""
    return [[marked_number(text) for text in each] for each in responses]


def flexible(responses: Iterable[Sequence[str]], documents: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A filter of lm-eval: what `final_number` finds in each response."""
    return [[final_number(text) for text in each] for each in responses]


def same_number(first: str, second: str) -> bool:
    """Whether two texts are one number: 1,234 is 1234.0, and digits beyond a float's count; what is none never is."""
    values = [_value(text) for text in (first, second)]
    return None not in values and values[0] == values[1]


def _value(text: str) -> Decimal | None:
    if not _ANY.fullmatch(text):
        return None
    return Decimal(text.replace(",", "").replace("$", "").replace(_MINUS, "-"))


def exact_match(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Scores one item, as lm-eval's `process_results`: 1 where the number is that of the document's `number`."""
    return {"exact_match": float(same_number(results[0], document["number"]))}
