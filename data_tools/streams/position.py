"""A place in a stream of samples from which it goes on exactly."""

from typing import Any

from pydantic import BaseModel, ConfigDict

VERSION = 1
"""of how documents become samples; whoever changes order or cutting makes recorded positions another version's"""


class StreamPosition(BaseModel):
    """The beginning of a shuffled block of documents: what is read on from there follows from it alone.

    Documents are read in order, part by part; as many of them as `StreamSettings.block_documents` says are one block,
    which is permuted by (seed, source, epoch, block) and cut. So nothing but this place is needed to go on, and what is
    read again is one block. `StreamPosition()` is the beginning of any stream.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: int = VERSION
    key: str = ""
    """`StreamSettings.key` of the stream that it is a place of; empty at the beginning of any"""
    epoch: int = 0
    part: int = 0
    """place of the part in the epoch's order of parts"""
    position: dict[str, Any] = {}
    """in the part, where its reader begins; see `data_tools.reading.block.Position`"""
    passed: int = 0
    """documents behind that place that this block does not have: blocks before took them, or they are reserved"""
    block: int = 0
    """number of the block in its epoch"""
    bad: int = 0
    """entries of the epoch before `position` that are no documents"""
    documents: int = 0
    """documents of all blocks before"""
    tokens: int = 0
    """tokens of all blocks before"""
    samples: int = 0
    """samples of all blocks before: the number of this block's first one"""
    carried: list[int] = []
    """tokens of blocks before that belong to this one's first sample, where samples are cut of a stream"""
