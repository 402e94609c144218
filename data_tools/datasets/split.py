"""`split: 949,50,1`: which documents are for training, validation and test, with Megatron's rounding."""

import math
import re
from itertools import accumulate, pairwise

import numpy as np

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

SPLITS = ("training", "validation", "test")


def parse_split(split: str) -> tuple[float, float, float]:
    """Reads one to three shares, separated as Megatron takes them (`949,50,1`, `949/50/1`, `949 50 1`, `[949, 50, 1]`).

    Missing ones are zero: `100` trains on all documents.

    Raises:
        TrainyardError: not one to three non-negative numbers, or all of them zero.
    """
    remedy = "Give one to three shares of documents separated by commas, such as 949,50,1"
    bare = re.sub(r"^\s*[\[(](.*)[\])]\s*$", r"\1", split)
    parts = re.split(r"\s*[,/]\s*|\s+", bare.strip())
    try:
        shares = [float(share) for share in parts]
    except ValueError:
        raise TrainyardError(f"split '{shortened(split)}' is not a list of numbers. {remedy}") from None
    if len(shares) > len(SPLITS):
        raise TrainyardError(f"split '{shortened(split)}' has {len(shares)} shares. {remedy}")
    if not all(math.isfinite(share) and share >= 0 for share in shares) or not 0 < sum(shares) < math.inf:
        raise TrainyardError(f"split '{shortened(split)}' has a negative or infinite share, or only zeros. {remedy}")
    training, validation, test = (*shares, 0.0, 0.0)[: len(SPLITS)]
    return training, validation, test


def split_documents(split: str, documents: int) -> list[tuple[int, int]]:
    """Document ranges [first, last) of training, validation and test; an empty split has first == last.

    Boundaries are the rounded cumulative shares, in the float arithmetic and order of megatron-core 0.16.1
    (parse_and_normalize_split, convert_split_vector_to_split_matrix, _build_megatron_dataset_splits), so that the
    same dataset is cut at the same documents.
    """
    shares = np.array(parse_split(split), dtype=np.float64)
    boundaries = [round(end * float(documents)) for end in accumulate((shares / shares.sum()).tolist(), initial=0.0)]
    return list(pairwise(boundaries))
