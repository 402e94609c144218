"""Shares of the parts for jobs beside one another: in order they hold what the parts hold, each document once."""

from collections.abc import Sequence

from data_tools.reading.block import Part


def shard_of(parts: Sequence[Part], number: int, shards: int) -> list[Part]:
    """One of so many shards of about equal bytes.

    Lines of a file that is not compressed are cut anywhere, parquet between row groups; everything else is whole in the
    shard in which it begins.

    Args:
        number: of the shard, from 0.

    Raises:
        TrainyardError: the shard is empty; names how many shards there can be.
    """
    raise NotImplementedError
