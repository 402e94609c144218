"""Which texts hold characters that libraries of other Unicode versions sort otherwise."""

from data_tools.text.recent_characters import _RANGES, RecentCharacters

CODES = [code for first, last in _RANGES for code in range(first, last + 1)]
RECENT = list(map(chr, CODES))


def test_the_characters_of_the_table_are_found_and_no_others() -> None:
    found = RecentCharacters()
    others = list(map(chr, sorted({*range(0x110000)} - {*CODES})))
    assert len(RECENT) > 4500
    assert found.holders(RECENT) == list(range(len(RECENT)))
    assert found.holders(others) == []  # half surrogates too, which JSON may hold
    assert found.holders(["".join(others), ""]) == []


def test_texts_short_and_long() -> None:
    short = ["plain", "é", f"a{RECENT[0]}", "", f"{RECENT[-1]}", "👩\u200d🚀"]
    long = [text + "漢 é x " * 2000 for text in short]
    for texts in (short, long, short + long):
        expected = [index for index, text in enumerate(texts) if RECENT[0] in text or RECENT[-1] in text]
        assert RecentCharacters().holders(texts) == expected
