"""What a file of documents holds, by its name, and how large one document may be."""

from megatron_patches.errors import Refused, TrainyardError

LARGEST_DOCUMENT = 256 << 20
"""bytes of the longest document that is read where nothing else is asked for; parsing takes several times as much"""
BLOCK_BYTES = 1 << 20
"""of a block: small enough that what holds it is used again and stays in a core's cache, not taken from the kernel"""
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
PARQUET, ARROW, TEXT, JSON = ".parquet", ".arrow", ".txt", (".jsonl", ".ndjson", ".json")
FORMS = f"{', '.join((*JSON, TEXT))} (each also with {' '.join(COMPRESSIONS)}), {PARQUET} and {ARROW}"
"""for messages: the endings of what is read"""


def form_of(name: str) -> str | None:
    """The ending that says what a file of this name holds, without that of its compression; None if none is known."""
    bare = name.lower().removesuffix(compression_of(name))
    known = (TEXT, *JSON) if compression_of(name) else (PARQUET, ARROW, TEXT, *JSON)
    return next((each for each in known if bare.endswith(each)), None)


def compression_of(name: str) -> str:
    """The ending that says how a file of this name is packed; empty if it is not."""
    return next((each for each in COMPRESSIONS if name.lower().endswith(each)), "")


def too_long(where: str, largest: int) -> Refused:
    """The error of a document beyond the limit."""
    return Refused(
        f"{where} is longer than {largest / (1 << 20):,.3g} MiB, the limit for one document; raise it with "
        "--max-document-mib, or leave the document out"
    )


def not_utf8(origin: str, error: UnicodeDecodeError) -> TrainyardError:
    """The error of a text in another encoding."""
    return TrainyardError(
        f"{origin} is not UTF-8 ({error.reason} at byte {error.start:,} of a piece); convert it with iconv -t UTF-8"
    )
