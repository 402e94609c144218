"""Who makes a dataset of a text: `tools/preprocess`, and its peers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from data_tools.text.tokenizers import find_tokenizer, load_tokenizer
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError

OURS = "tools/preprocess"
POOL = "pool"
WHOLE_FILE = "whole-file"
UINT16_BELOW = 65500
"""ids of a vocabulary for which Megatron-LM writes uint16: its own number, so that ours is compared with it"""


@dataclass(frozen=True)
class Task:
    """What each of them is asked for."""

    tokenizer: Path
    workers: int


@dataclass(frozen=True)
class Contender:
    """One way to make a dataset."""

    name: str
    what: str
    """in a few words"""
    words: tuple[str, ...]
    """its command, with INPUT and PREFIX in it"""
    own_ids: bool = False
    """its ids may differ from ours, so that only documents are compared"""

    def command(self, text: Path, prefix: Path) -> list[str]:
        """The command for a text and a dataset."""
        places = {"INPUT": str(text), "PREFIX": str(prefix)}
        return [places.get(word, word) for word in self.words]


def contenders(task: Task, peers: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """Ours first, then those peers whose libraries are installed; of the others, why they are left out.

    Raises:
        TrainyardError: the tokenizer cannot be loaded, or has no end-of-document token.
    """
    tokenizer = load_tokenizer(task.tokenizer)
    if tokenizer.end_of_document is None:
        raise TrainyardError(f"{task.tokenizer} has no end-of-document token; measure with a tokenizer that has one")
    ours = [str(CHECKOUT / "tools" / "preprocess"), "INPUT", "--output", "PREFIX", "--tokenizer", str(task.tokenizer)]
    found = [Contender(OURS, "hashed, with a manifest", (*ours, "--append-eod", "--workers", str(task.workers)))]
    model = find_tokenizer(task.tokenizer).model
    dtype = "<u2" if tokenizer.vocab_size < UINT16_BELOW else "<i4"
    asked = ["--end", str(tokenizer.end_of_document), "--dtype", dtype, "--workers", str(task.workers)]
    missing = {}
    for name, module, library, what in _peers(task.workers):
        if name in peers and find_spec(library) is None:
            missing[name] = f"{library} is not installed: make install-dev"
        elif name in peers:
            words = (sys.executable, "-m", f"data_tools.benchmark.{module}", "INPUT", str(model), "PREFIX", *asked)
            found.append(Contender(name, what, words, own_ids=name == POOL and model.suffix == ".model"))
    return found, missing


def _peers(workers: int) -> list[tuple[str, str, str, str]]:
    """(name, module, library, what it is)"""
    return [
        (POOL, "pool_peer", "transformers", f"{workers} processes, a call of transformers for each record, one writer"),
        (WHOLE_FILE, "whole_file_peer", "gigatoken", "gigatoken over the whole file, all documents in memory"),
    ]
