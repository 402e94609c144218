"""Training a byte-level BPE tokenizer from text."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.files.sources import FoundParts
from data_tools.text.tokenizer_folder import write_tokenizer
from data_tools.text.training_text import TrainingText
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.errors import TrainyardError

END_OF_DOCUMENT = "<|endoftext|>"
BYTES = 256


def train_bpe(
    files: Sequence[Path],
    output: Path,
    vocab_size: int,
    special_tokens: Sequence[str] = (END_OF_DOCUMENT,),
    json_key: str = "text",
    largest_document: int = LARGEST_DOCUMENT,
    on_found: Callable[[FoundParts], None] = lambda found: None,
) -> Manifest:
    """Trains a byte-level BPE (Radford et al. 2019) and writes tokenizer.json, tokenizer_config.json, manifest.json.

    The same files give the same tokenizer, on any number of cores.

    Args:
        files: sources as `parts_of` takes them.
        output: folder to make; it appears when it is complete.
        vocab_size: ids in all: 256 bytes, the special tokens (the first ones), merges.
        special_tokens: the first one ends a document.
        largest_document: bytes; longer ones are refused.
        on_found: hears what is read, and what is not.

    Raises:
        TrainyardError: the folder exists, the vocabulary is too small, or the text yields fewer merges than asked.
    """
    refuse_existing(output)
    if not special_tokens or vocab_size < BYTES + len(special_tokens):
        raise TrainyardError(
            f"vocabulary of {vocab_size} with {len(special_tokens)} special tokens: at least one special token and "
            f"{BYTES} bytes must fit; choose --vocab-size {BYTES + max(1, len(special_tokens))} or more"
        )
    text = TrainingText(files, json_key, largest_document, on_found)
    library = _train(text.texts(), vocab_size, special_tokens)
    refuse_fewer(library.get_vocab_size(), vocab_size)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special_tokens[0],
        "eos_token": special_tokens[0],
        "clean_up_tokenization_spaces": False,
    }
    facts: dict[str, JsonValue] = {
        "algorithm": "byte-level BPE",
        "vocab_size": vocab_size,
        "special_tokens": list(special_tokens),
        "end_of_document": library.token_to_id(special_tokens[0]),
        **text.facts(),
    }
    contents = {
        "tokenizer.json": library.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }
    return write_tokenizer(output, contents, facts, command_of(text, output, vocab_size))


def refuse_existing(output: Path) -> None:
    """Raises TrainyardError where the folder that is to be made is there."""
    if output.exists():
        raise TrainyardError(f"{output} exists already; remove it, or choose another --output")


def refuse_fewer(found: int, asked: int) -> None:
    """Raises TrainyardError where a text yields fewer ids than were asked for."""
    if found < asked:
        raise TrainyardError(
            f"the text yields only {found} tokens, {asked} were asked for; "
            "give more text, or choose a smaller --vocab-size"
        )


def command_of(text: TrainingText, output: Path, vocab_size: int, *more: str) -> str:
    """What trains the same tokenizer, for its manifest."""
    words = ["tools/tokenizer", "train", *text.names, "--output", output.name, "--vocab-size", str(vocab_size)]
    return shlex.join([*words, *more])


def _train(texts: Iterator[str], vocab_size: int, special_tokens: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return library
