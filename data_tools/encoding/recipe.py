"""How blocks become token ids: all that decides it."""

from dataclasses import dataclass, field
from pathlib import Path

from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.records.encoding import RecordEncoding
from data_tools.text.document_encoding import TextEncoder
from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class Recipe:
    """What is made of each block.

    Raises:
        TrainyardError: the options cannot be.
    """

    tokenizer: Path
    """a folder with a `tokenizer.json`, or a SentencePiece `.model`"""
    keys: tuple[str, ...] = ("text",)
    """of the texts, each of which becomes a dataset of its own; records have their own"""
    records: RecordEncoding | None = None
    """how records with answers are written; None: the entries are texts"""
    append_eod: bool = False
    """whether each text ends with the end-of-document token; records know by themselves"""
    parse_special: bool = False
    """whether text that spells a control token becomes it, as Megatron-LM has it"""
    encoder: TextEncoder | None = field(default=None, compare=False)  # which need not be hashable
    """what makes ids of texts; None leaves it to the tokenizer; records have their own"""
    largest_document: int = LARGEST_DOCUMENT
    """bytes"""
    max_length: int | None = None
    """tokens that a text keeps, its end-of-document token included; None: all"""
    library: str | None = None
    """which library encodes, of `EncodingProof.library`; None: the fastest that takes the tokenizer"""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise TrainyardError(f"documents would keep {self.max_length:,} tokens; give --max-length 1 or more")
        if self.max_length is not None and self.records is not None:
            raise TrainyardError("--max-length would cut answers off; it is for texts: leave it out")
