"""A place in a stream of samples from which it goes on exactly."""

from typing import Any

from pydantic import BaseModel, ConfigDict

VERSION = 1
"""of how documents become samples; whoever changes order or cutting makes recorded positions another version's"""


class StreamPosition(BaseModel):
    """The beginning of a shuffled block of documents: what is read on from there follows from it alone.

    Documents are read in order, part by part; so many of them as `shuffle_documents` says are one block, which is
    permuted by (seed, source, epoch, block) and cut. So nothing but this place is needed to go on, and what is read
    again is one block.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: int = VERSION
    epoch: int = 0
    part: int = 0
    """place of the part in the epoch's order of parts"""
    position: dict[str, Any] = {}
    """in the part, where its reader begins; see `data_tools.reading.block.Position`"""
    passed: int = 0
    """documents behind that place that blocks before this one have taken"""
    block: int = 0
    """number of the block in its epoch"""
    documents: int = 0
    """documents of all blocks before"""
    samples: int = 0
    """samples of all blocks before: the number of this block's first one"""
    carried: list[int] = []
    """tokens of blocks before that belong to this one's first sample, where samples are cut of a stream"""
