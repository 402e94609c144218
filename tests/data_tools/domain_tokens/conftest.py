"""A small tokenizer with the tokens of the multiplication table."""

from pathlib import Path

import pytest

from data_tools.domain_tokens.multiplication import multiplication_tokens
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizer_extension import extend_tokenizer
from data_tools.text.tokenizers import load_tokenizer

FIRST_ID = 310


@pytest.fixture(scope="session")
def extended_folder(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BPE of 300 ids, ten unused ones, and 45 tokens."""
    folder = tmp_path_factory.mktemp("extended") / "bpe-mul"
    extend_tokenizer(tokenizer_folder, folder, multiplication_tokens(), FIRST_ID)
    return folder


@pytest.fixture(scope="session")
def plain(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def extended(extended_folder: Path) -> Tokenizer:
    return load_tokenizer(extended_folder)
