"""What a format of local files that encoders are asked says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderFormat:
    """A way to write down texts that an encoder is asked, and what is made of them. lm-eval knows none of these."""

    word: str
    version: str
    """raised whenever the same files would give a model other numbers"""
    source: str
    """how people name its files"""
    row: str
    """keys of a row, and what else its files may be"""
    manner: str
    """how it is asked and scored: whose numbers these are"""
    example: str
    """one row, as it stands in a file"""
    metrics: Sequence[str]
    """the first one stands for the task"""
