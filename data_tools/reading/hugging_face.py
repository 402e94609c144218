"""Collections of the library `datasets` as sources of documents: streamed, copied first, or on disk."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import JsonValue

from data_tools.reading.block import Part
from data_tools.reading.hugging_face_name import HubSpec


class HubDataset(NamedTuple):
    """One split of a dataset, opened."""

    splits: tuple[str, ...]
    """all that there are, for `evaluation_split`"""
    split: str
    """the one that is read"""
    identity: dict[str, JsonValue]
    """what manifests record: name, configuration, split, columns, and the commit or the fingerprint it is read at"""
    rows: int | None
    """how many it holds; None where that shows only at its end"""
    shards: tuple[Part, ...]

    def parts(self) -> list[Part]:
        """Its shards, in order."""
        return list(self.shards)


def open_hub(
    spec: HubSpec,
    split: str | None = None,
    columns: Sequence[str] = ("text",),
    revision: str | None = None,
    streaming: bool = True,
    timeout_seconds: float = 60.0,
    retries: int = 5,
) -> HubDataset:
    """Opens one split of a dataset.

    Args:
        split: its name; None is the one for training.
        columns: what is read of it.
        revision: commit, branch or tag on the hub.
        streaming: read it as it is needed; False copies it into the library's cache first.
        timeout_seconds: the longest wait for an answer.
        retries: further tries after one that failed, each after a longer pause.

    Raises:
        Missing: no such dataset, configuration, split or column.
        Damaged: a folder or file is not what the library wrote.
        TrainyardError: the hub does not answer, or refuses.
    """
    raise NotImplementedError
