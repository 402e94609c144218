"""A fast library that gives other ids: the reference takes over, and no block is lost or read twice."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.text_sources import encoding


class Pool:
    """Reads two blocks ahead; the fast one fails at the block named 3."""

    def __init__(self, recipe: Recipe, workers: int, tokenizer: object) -> None:
        self.library = recipe.library or "fast"
        self.proof = SimpleNamespace(reference="tokenizers 0.1")

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def encode(self, blocks: Iterable[str]) -> Iterator[tuple[str, str]]:
        source = iter(blocks)
        ahead = [next(source, None), next(source, None)]
        while (block := ahead.pop(0)) is not None:
            ahead.append(next(source, None))
            if block == "3" and self.library == "fast":
                raise DifferentIds("part", "part, line 7", "fast", "gives other ids")
            yield block, f"{self.library} {block}"


def test_the_reference_takes_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(encoding, "EncodingPool", Pool)
    monkeypatch.setattr(encoding, "load_tokenizer", lambda path, allow_invalid: None)
    read: list[str] = []

    def blocks() -> Iterator[Any]:
        for number in range(6):
            read.append(str(number))
            yield str(number)

    with encoding.open_encoding(Recipe(Path("t")), False, 2) as encode:
        found = [str(each) for _, each in encode(blocks())]
        assert found == ["fast 0", "fast 1", "fast 2", "tokenizers 3", "tokenizers 4", "tokenizers 5"]
        assert read == ["0", "1", "2", "3", "4", "5"]
    assert "part, line 7: fast gives other ids" in capsys.readouterr().err
