"""Tables keep what a row is called, are whole in a pipe, and fit a terminal without cutting or breaking a word."""

import pytest

from tools.tables import matrix_lines, print_table, table_lines

HEAD = ["checkpoint", "bytes", "why", "location"]
ROWS = [
    ["step-0000001000", "1,234,567", "to be compared with the next one", "s3://bucket/a/long/prefix/without/a/space"],
    ["step-0000000500", "7", "", "file:///x"],
]


def words(lines: list[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


def test_in_a_pipe_each_row_is_one_line_and_columns_begin_at_the_same_place() -> None:
    lines = table_lines(HEAD, ROWS, None, numbers={1})
    assert len(lines) == 3
    assert {line.index(place) for line, place in zip(lines, ("location", "s3://", "file://"), strict=True)} == {62}
    assert [line[17:26] for line in lines] == ["    bytes", "1,234,567", "        7"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_on_a_terminal_nothing_is_cut_or_broken(width: int) -> None:
    lines = table_lines(HEAD, ROWS, width, numbers={1})
    assert words([cell for row in ROWS for cell in row]) <= words(lines)
    longest = max(len(word) for word in words(lines)) + 6  # a word that is longer than the line stands in one beneath
    assert all(len(line) <= max(width, longest, 26) for line in lines)
    assert [line.split()[0] for line in lines if line.startswith("step-")] == [row[0] for row in ROWS]


def test_what_does_not_fit_stands_beneath_its_row_with_its_title() -> None:
    lines = table_lines(HEAD, ROWS, 60, numbers={1})
    assert lines[0].split() == ["checkpoint", "bytes", "why"]
    assert "    location: s3://bucket/a/long/prefix/without/a/space" in lines


def test_wide_characters_take_two_cells() -> None:
    lines = table_lines(["name", "x"], [["漢字", "1"], ["abcd", "2"]], None)
    assert [line.rindex(end) for line, end in zip(lines[1:], "12", strict=True)] == [4, 6]


def test_what_others_wrote_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["[bold]name"], [["\x1b]52;c;x\x07[bold]two\nlines\u202e[/bold]"]])
    assert capsys.readouterr().out == "[bold]name\n\\x1b]52;c;x\\x07[bold]two\\x0alines\\u202e[/bold]\n"


def test_an_empty_table_has_its_head() -> None:
    assert table_lines(HEAD, [], 80) == ["checkpoint  bytes  why  location"]


def test_columns_that_are_alike_stand_in_a_further_table_where_there_is_no_room() -> None:
    head, rows = ["step", "a", "b", "c"], [["1", "10", "20", "30"], ["2", "11", "21\x1b", "31"]]
    assert matrix_lines(head, rows, None, 1, {1, 2, 3}) == [
        "step   a       b   c", "1     10      20  30", r"2     11  21\x1b  31",
    ]  # fmt: skip
    assert matrix_lines(head, rows, 17, 1, {1, 2, 3}) == [
        "step   a       b", "1     10      20", r"2     11  21\x1b", "", "step   c", "1     30", "2     31",
    ]  # fmt: skip
    assert matrix_lines(["step"], [["1"]], 80, 1) == ["step", "1"]
