"""Files that views write: refused before any work is done, whole or absent."""

import io
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_patches.errors import Missing, Refused
from megatron_patches.foreign.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".svg", ".png")


def check_output(file: Path, endings: Collection[str]) -> None:
    """Refuses a file that cannot be written; one that is there will be replaced.

    Raises:
        Refused: its ending says no format that the view has, or it is a folder.
        Missing: there is no folder for it.
    """
    if file.suffix not in endings:
        raise Refused(f"{printable(file)}: its ending says the format; give it one of {', '.join(endings)}")
    if file.is_dir():
        raise Refused(f"{printable(file)} is a folder; name a file")
    if not file.absolute().parent.is_dir():
        raise Missing(f"{printable(file)} cannot be written: there is no folder {printable(file.parent)}")


def picture_bytes(figure: "Figure", ending: str) -> bytes:
    """A figure as .svg, whose texts stay texts, or .png; the same figure gives the same bytes."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "trainyard", "svg.fonttype": "none"}):
        metadata = {"Date": None} if ending == ".svg" else {}
        figure.savefig(buffer, format=ending.removeprefix("."), dpi=120, metadata=metadata)
    return buffer.getvalue()
