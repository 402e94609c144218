"""Tokens shown as text: samples and documents, with the parts that are answers marked."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path, read_dataset_manifest
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError
from tools.terminal import tell

TEXT, ANSWER = "  | ", "  > "
"""what a line of a text begins with, so that none of it passes for a line of ours"""


def own_tokenizer(prefix: Path, path: Path | None) -> Tokenizer:
    """The tokenizer that a dataset was made with, from the folder that is said to hold it.

    Raises:
        TrainyardError: no folder was given, or it holds another tokenizer.
    """
    facts = read_dataset_manifest(prefix, allow_invalid=True)[1] if manifest_path(prefix).is_file() else None
    if path is None:
        made_with = f" was made with {facts.tokenizer.name} ({facts.tokenizer.id[:12]})" if facts else ""
        raise TrainyardError(f"dataset {prefix}{made_with}: name its tokenizer's folder with --tokenizer DIR")
    tokenizer = load_tokenizer(path, allow_invalid=True)
    if facts is not None and facts.tokenizer.id != tokenizer.id:
        raise TrainyardError(
            f"dataset {prefix} was made with tokenizer {facts.tokenizer.name} ({facts.tokenizer.id[:12]}), "
            f"{path} is another one ({tokenizer.id[:12]}); give the dataset's own"
        )
    return tokenizer


def print_sample(
    number: int, where: str, tokens: NDArray[Any], answers: NDArray[np.bool_] | None, tokenizer: Tokenizer
) -> None:
    """Prints a line that says what follows, then the text, each line behind `|`, or `>` where it is an answer.

    Args:
        number: of the sample or document.
        where: what it is, such as "document of 12 tokens".
        tokens: ids, [n].
        answers: which of them belong to an answer, [n]; None where none does.

    Raises:
        TrainyardError: the tokenizer lacks one of the tokens.
    """
    tell(f"{number}: {where}")
    for is_answer, ids in _parts(tokens, answers):
        for line in _decode(ids, tokenizer).split("\n"):
            tell(f"{ANSWER if is_answer else TEXT}{line}", layout=True)


def sample_record(
    number: int, where: str, tokens: NDArray[Any], answers: NDArray[np.bool_] | None, tokenizer: Tokenizer
) -> dict[str, Any]:
    """The same as values: `answers` are ranges [first, end) of places in `tokens`."""
    ranges, place = [], 0
    for is_answer, ids in _parts(tokens, answers):
        if is_answer:
            ranges.append([place, place + len(ids)])
        place += len(ids)
    text = _decode(tokens.tolist(), tokenizer)
    return {"number": number, "where": where, "tokens": tokens.tolist(), "answers": ranges, "text": text}


def _parts(tokens: NDArray[Any], answers: NDArray[np.bool_] | None) -> Iterator[tuple[bool, list[int]]]:
    """The tokens cut where an answer begins or ends."""
    if answers is None or not len(tokens):
        yield False, tokens.tolist()
        return
    changes = (np.flatnonzero(answers[1:] != answers[:-1]) + 1).tolist()
    for first, end in pairwise([0, *changes, len(tokens)]):
        yield bool(answers[first]), tokens[first:end].tolist()


def _decode(ids: list[int], tokenizer: Tokenizer) -> str:
    if ids and not 0 <= min(ids) <= max(ids) < tokenizer.vocab_size:
        wrong = next(token for token in ids if not 0 <= token < tokenizer.vocab_size)
        raise TrainyardError(
            f"token id {wrong} is none of the {tokenizer.vocab_size:,} of tokenizer {tokenizer.name}; give the one "
            "that the dataset was made with"
        )
    return tokenizer.decode(ids)


def answer_marks(dataset: IndexedDataset, first: int, end: int) -> NDArray[np.bool_] | None:
    """Which of the tokens [first, end) belong to answers, bool [end - first]: those of the second, fourth, ... sequence
    of their document. None where none does, as in documents of one sequence.

    Raises:
        Damaged: the sequences there leave gaps or overlap.
    """
    marks = dataset.answers(first, end - first)
    return marks if marks.any() else None
