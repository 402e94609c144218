"""Peer: a pool of processes, one call of a tokenizer for each record, one writer.

Rebuilt from what Megatron-LM's tools/preprocess_data.py does: `Pool.imap` over the lines of a file in chunks of 32,
`json.loads` and a call of a tokenizer of transformers in a worker, lists of ids back to the one process that writes. A
SentencePiece `.model` is called as T5's, the kind that transformers has for it: its ids differ from sentencepiece's in
a few documents, where two ways to cut a word weigh the same. Megatron is not imported, which would only add seconds to
the peer's start.
"""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from pathlib import Path

from data_tools.benchmark.peer import CANNOT, read_request
from data_tools.benchmark.plain_writer import PlainWriter
from slurm.parent import ask_for_signal

CHUNK = 32
"""records that travel to a worker together"""

_encode: list[Callable[[str], list[int]]] = []
"""of a worker: what its initializer has loaded"""


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    request = read_request(arguments, "pool_peer")
    if request.model.suffix == ".model" and not _is_of_t5(request.model):
        print(
            "transformers' T5Tokenizer takes ids 0, 1 and 2 for padding, end and what is unknown; here they are others"
        )
        return CANNOT
    load(request.model)  # here too, as Megatron-LM does: its workers are forked with the library imported
    writer = PlainWriter(request.prefix, request.dtype)
    with request.input.open(encoding="utf-8") as lines, Pool(request.workers, start_worker, (request.model,)) as pool:
        for ids in pool.imap(encode_line, lines, CHUNK):
            if ids:
                ids.append(request.end)
            writer.add(ids)
        writer.finish()
        pool.close()
        pool.join()
    return 0


def start_worker(model: Path) -> None:
    """Loads the tokenizer of this process, which ends with the one that started it."""
    ask_for_signal(signal.SIGKILL)
    _encode.append(load(model))


def encode_line(line: str) -> list[int]:
    """The ids of a record."""
    return _encode[0](json.loads(line)["text"])


def _is_of_t5(model: Path) -> bool:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(model))
    return (processor.pad_id(), processor.eos_id(), processor.unk_id()) == (0, 1, 2)


def load(model: Path) -> Callable[[str], list[int]]:
    """The tokenizer as a function of a text."""
    from transformers import PreTrainedTokenizerFast, T5Tokenizer

    # What spells a control token stays text, as in the datasets that it is compared with.
    if model.suffix == ".model":
        files = {"pretrained_model_name_or_path": str(model.parent), "vocab_file": str(model)}
        tokenizer = T5Tokenizer.from_pretrained(**files, split_special_tokens=True, extra_ids=0)
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model), split_special_tokens=True)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return encode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
