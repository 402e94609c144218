"""Files of this machine that are to be copied: reading the first bytes of one, and comparing it with its manifest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from megatron_patches.artefacts.storage.store import DamagedSource, Upload, VanishedSource

_CHUNK = 4 << 20


def first_bytes(path: Path, size: int) -> Iterator[bytes]:
    """The first bytes of a file, in pieces; fewer where the file is shorter.

    Raises:
        FileNotFoundError: it is not there.
    """
    left = size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            yield chunk
            left -= len(chunk)


def check_source(upload: Upload) -> None:
    """Reads a file that is to be copied.

    Raises:
        VanishedSource: it was removed meanwhile.
        DamagedSource: it is not what its manifest says.
    """
    digest = hashlib.sha256()
    try:
        for chunk in first_bytes(upload.local, upload.size):
            digest.update(chunk)
    except FileNotFoundError:
        raise VanishedSource(str(upload.local)) from None
    if digest.hexdigest() != upload.sha256:
        raise DamagedSource(
            f"{upload.local} is not what its manifest says (sha256 {digest.hexdigest()[:12]}, not "
            f"{upload.sha256[:12]}); it was not copied. Restore it, or let the run write another checkpoint"
        )
