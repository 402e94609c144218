"""Peer: gigatoken over a whole file, all documents in memory, then one write.

Rebuilt from what Megatron-LM's tools/preprocess_data_fast.py does. It is the faster of the two: gigatoken uses its
threads (in Megatron-LM's it stands in a process of a pool, where it uses one), ids are written at once, and neither
torch nor Megatron is imported.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.benchmark.peer import CANNOT, PeerRequest, read_request
from data_tools.benchmark.plain_writer import write_index
from data_tools.datasets.indexed_dataset_format import bin_path


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    request = read_request(arguments, "whole_file_peer")
    os.environ["RAYON_NUM_THREADS"] = str(request.workers)
    try:
        tokenizer = _load(request.model)
    except Exception as error:  # noqa: BLE001  the library has no errors of its own
        print(f"gigatoken refuses this tokenizer: {str(error).partition(chr(10))[0]}")
        return CANNOT
    ids, lengths = _encode(tokenizer, request)
    ids = np.insert(ids.astype(request.dtype), np.cumsum(lengths)[lengths > 0], request.end)
    ids.tofile(bin_path(request.prefix))
    write_index(request.prefix, request.dtype, lengths + (lengths > 0))
    return 0


def _load(model: Path) -> Any:
    """The tokenizer without its control tokens, whose spellings stay text then."""
    from gigatoken import Tokenizer

    if model.suffix == ".model":
        return Tokenizer.from_sentencepiece(model)
    described = json.loads(model.read_text(encoding="utf-8"))
    described["added_tokens"] = [each for each in described.get("added_tokens") or () if not each["special"]]
    described["post_processor"] = None
    return Tokenizer.from_json(json.dumps(described))


def _encode(tokenizer: Any, request: PeerRequest) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """uint32[tokens] of all documents, and int64[documents], the tokens of each."""
    import awkward
    from gigatoken import JsonlFileSource

    encoded = tokenizer.encode_files(JsonlFileSource([request.input], "text"), parallel=True)
    lengths = np.asarray(awkward.num(encoded), dtype=np.int64)
    return np.asarray(awkward.flatten(encoded)), lengths


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
