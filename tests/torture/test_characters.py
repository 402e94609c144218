"""The short form of `python -m tests.torture.characters`, and whether it would notice anything."""

from pathlib import Path

import pytest

from data_tools.text import recent_characters
from tests.torture.characters import PATTERNS, code_points, differences, opened

RECENT = [code for first, last in recent_characters._RANGES for code in range(first - 2, last + 3)]
CHOSEN = sorted({*RECENT[::7], *code_points()[:0x3000:5], *code_points()[::331]})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_libraries_cut_where_the_tokenizers_own_does(tmp_path: Path, pattern: str) -> None:
    tokenizer, libraries = opened(tmp_path / pattern, PATTERNS[pattern])
    assert [each.name for each in libraries] == ["gigatoken", "fastokens"]
    assert differences(tokenizer, libraries, CHOSEN) == {"gigatoken": [], "fastokens": []}


def test_it_would_notice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its table gigatoken cuts at characters of Unicode 17 otherwise; with another version perhaps no more."""
    monkeypatch.setattr(recent_characters.RecentCharacters, "holders", lambda self, texts: [])
    found = differences(*opened(tmp_path / "gpt2", PATTERNS["gpt2"]), RECENT[::7])
    assert len(found["gigatoken"]) > 500 and found["fastokens"] == []
