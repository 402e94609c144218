"""Files of this machine that are to be copied, compared with their manifest."""

from megatron_patches.artefacts.storage.store import DamagedSource, Upload, VanishedSource
from megatron_patches.atomic_files import hash_file


def check_source(upload: Upload) -> None:
    """Reads a file that is to be copied.

    Raises:
        VanishedSource: it was removed meanwhile.
        DamagedSource: it is not what its manifest says.
    """
    try:
        found, _ = hash_file(upload.local, upload.size)
    except FileNotFoundError:
        raise VanishedSource(str(upload.local)) from None
    if found != upload.sha256:
        raise DamagedSource(
            f"{upload.local} is not what its manifest says (sha256 {found[:12]}, not "
            f"{upload.sha256[:12]}); it was not copied. Restore it, or let the run write another checkpoint"
        )
