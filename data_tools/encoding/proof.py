"""What shows that a fast library gives the tokenizer's own ids: documents compared beside the work."""

import hashlib
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from data_tools.encoding.encoded_block import Compared
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable, shortened


class EncodingProof(BaseModel):
    """What encoded, and what was compared with the reference. It does not depend on workers or on cuts of blocks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str
    """`gigatoken`, `fastokens`, `tokenizers` or `sentencepiece`"""
    version: str
    reference: str
    """library and version that say what is right, such as `tokenizers 0.23.3`"""
    documents: int = 0
    """texts that both encoded; none where the library is the reference itself"""
    text_bytes: int = 0
    """of these texts in UTF-8"""
    sha256: str = ""
    """over the ids of these texts, one after the other: h = sha256(h before + sha256(ids as little-endian int32))"""
    by_reference: tuple[str, ...] = ()
    """origins of parts that the reference encoded, because the library had given other ids there"""

    def after(self, compared: Compared) -> "EncodingProof":
        """With what was compared in one more block."""
        state = bytes.fromhex(self.sha256)
        for each in compared.hashes:
            state = hashlib.sha256(state + each).digest()
        documents, text_bytes = self.documents + compared.documents, self.text_bytes + compared.text_bytes
        return self.model_copy(update={"documents": documents, "text_bytes": text_bytes, "sha256": state.hex()})

    def redone(self, origins: Collection[str]) -> "EncodingProof":
        """With parts that the reference encodes."""
        return self.model_copy(update={"by_reference": tuple(sorted({*self.by_reference, *origins}))})


class DifferentIds(Refused):
    """A library gave a text other ids than the reference: what it made of the part is not to be kept.

    Args:
        origin: the part, as its blocks call it.
        where: the entry, for messages.
    """

    def __init__(self, origin: str, where: str, library: str, reason: str) -> None:
        self.origin = origin
        self.where = where
        self.library = library
        self.reason = reason
        self.told = f"{printable(where)}: {library} {shortened(reason, 300)}"
        super().__init__(f"{self.told}; the part is to be encoded again by the tokenizer's own library")

    def __reduce__(self) -> tuple[type["DifferentIds"], tuple[str, str, str, str]]:
        return DifferentIds, (self.origin, self.where, self.library, self.reason)
