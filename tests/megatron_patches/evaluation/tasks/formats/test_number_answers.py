"""Numbers are found where people and models write them, and compared as numbers."""

import pytest

from megatron_patches.evaluation.tasks.formats.number_answers import (
    NOT_FOUND,
    exact_match,
    final_number,
    flexible,
    marked_number,
    same_number,
    strict,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3.\n#### 1,234", "1,234"),
        ("#### 5\n\n#### 6", "5"),
        ("####-7.50.", "-7.50"),
        ("#### $1,000,000 a year", "$1,000,000"),
        ("#### -$3", "-$3"),
        ("#### .5", ".5"),
        ("#### 1,2345", "1"),
        ("#### none, then #### 8", "8"),
        ("#### \u22125", "\u22125"),
        ("#### 8%", "8"),
        ("#### +8<|endoftext|>", "+8"),
        ("##### 007", "007"),
        ("The answer is 5", NOT_FOUND),
        ("", NOT_FOUND),
    ],
)
def test_the_marked_number_is_the_first_behind_four_hashes(text: str, number: str) -> None:
    assert marked_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 4. #### 5 and 6", "5"),
        ("so the answer is 4, not 5", "4"),
        ("The answer is: $12.50. Good 7", "$12.50"),
        ("The ANSWER is 4, not 5", "5"),
        (" 42.\nUser: What is 3 times 7?", "7"),
        ("12 - 4 = 10-7", "7"),
        ("(2)-3", "3"),
        ("it fell to -3 degrees", "-3"),
        ("it costs 12,345.", "12,345"),
        ("the list 1,2,3", "3"),
        ("about 1234,567", "567"),
        ("The answer is \u22125.", "\u22125"),
        ("12 \u2212 4 = 10\u22127", "7"),
        ("so it is...6", "6"),
        ("from 3-4 on", "4"),
        ("The answer is five, or 5 of 7", "7"),
        ("<<3+4=7>>7 apples", "7"),
        ("half is 1/2", "2"),
        ("forty-two", NOT_FOUND),
    ],
)
def test_the_final_number_is_the_marked_one_or_the_said_one_or_the_last_one(text: str, number: str) -> None:
    assert final_number(text) == number


def test_numbers_are_compared_as_numbers() -> None:
    assert same_number("18", "18.00")
    assert same_number("$1,234", "1234.0")
    assert same_number("-0", "0")
    assert same_number("\u22125", "-5.0")
    assert not same_number("\u22125", "5")
    assert not same_number("18", "18.01")
    assert not same_number("-3", "3")


def test_large_numbers_are_compared_to_the_last_digit() -> None:
    large = "9" * 6000
    assert same_number(large, f"{large}.0")
    assert not same_number("90071992547409930000001", "90071992547409930000002")


def test_what_is_no_number_is_never_right() -> None:
    assert not same_number(NOT_FOUND, NOT_FOUND)
    assert exact_match({"number": "5"}, [NOT_FOUND]) == {"exact_match": 0.0}
    assert exact_match({"number": "5"}, ["5.0"]) == {"exact_match": 1.0}


def test_filters_give_a_number_for_each_response() -> None:
    responses = [["#### 1", "2"], ["the answer is 3"]]
    assert strict(responses, []) == [["1", NOT_FOUND], [NOT_FOUND]]
    assert flexible(responses, []) == [["1", "2"], ["3"]]
