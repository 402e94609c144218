"""The text of a card: token ids that a model is taught, so that its logits are compared where it is used. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from data_tools.text.tokenizer import Tokenizer
    from megatron_patches.run.config import RunConfig


@dataclass(frozen=True)
class CardText:
    """Samples of real text, all of one length."""

    ids: NDArray[np.int64]
    """`[samples, positions]`; 512 of them or more"""
    described: str
    """where they were taken from, as a phrase without paths of this machine"""
    sha256: str
    """of the ids' bytes (little-endian int64, row by row): 64 hexadecimal digits"""


def card_text(config: RunConfig, tokenizer: Tokenizer, given: Path | None) -> CardText:
    """The file that was given, else the run's validation samples where its datasets are on this machine, else the
    documents of this checkout.

    Samples are as long as the model has positions, 512 at most.

    Raises:
        Missing: the file is not there.
        Refused: the file is no UTF-8 text, or has less than 512 tokens.
    """
    raise NotImplementedError
