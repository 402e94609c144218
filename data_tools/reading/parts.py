"""Files of documents as parts: which reader a file has, its name says."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.reading.block import Part
from data_tools.reading.documents import LARGEST_DOCUMENT


def file_part(
    path: Path, name: str, keys: Sequence[str], largest: int = LARGEST_DOCUMENT, option: str = "--json-keys"
) -> Part:
    """One file, whole.

    Args:
        name: how manifests call it.
        keys: keys of JSON objects, or columns of rows.
        largest: bytes of the longest entry; a longer line or text is cut to one byte more, for `documents_of` to refuse.
        option: where the keys were asked for, for errors.

    Raises:
        Damaged: a file of rows is not of its format.
        TrainyardError: a file of rows lacks a column, or several keys are asked of one text.
    """
    raise NotImplementedError
