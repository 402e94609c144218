"""Whether what is imported is an artefact known here: an export of ours that comes back, or one that was adopted."""

from pathlib import Path

from megatron_patches.artefacts.inventory.artefact import files_folder
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    Manifest,
    parse_manifest,
    read_manifest,
    refuse_invalid,
    verify_files,
)
from megatron_patches.errors import Damaged, Missing
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable

_OURS = {"id", "kind", "parents", "files", "facts"}


def manifest_beside(named: Path, folder: Path) -> Manifest | None:
    """The manifest of ours that lies in a foreign checkpoint's folder, or in the one that was named for it.

    Raises:
        Damaged: the manifest or the files beside it were changed since they were written.
        Refused: it is marked invalid, or a later version wrote it.
    """
    for place in dict.fromkeys((named, folder)):
        path = place / MANIFEST
        try:
            content = read_bounded(path)
        except Missing:
            continue
        if not _is_ours(content):
            continue
        manifest = parse_manifest(content, printable(path))
        refuse_invalid(manifest, path, "take the mark back: tools/inventory revalidate")
        if problems := verify_files(manifest, place, hashes=False):
            raise Damaged(
                f"{problems[0]}: the {manifest.kind} is not what it was when it was written. Copy it again, or remove "
                f"{printable(path)} to import it as something whose origin is not known"
            )
        return manifest
    return None


def _is_ours(content: bytes) -> bool:
    """Other programs write files of this name too."""
    try:
        return parse_object(content, MANIFEST).keys() >= _OURS
    except Damaged:
        return False


def adopted_as(catalogue: Catalogue, folder: Path) -> Manifest | None:
    """The manifest by which a foreign folder was adopted; None where it was not.

    Raises:
        Damaged: the manifest was changed, or where its files lie cannot be read.
        Refused: it is marked invalid.
    """
    wanted = folder.resolve()
    for each in catalogue.artefacts("kind = 'checkpoint' AND whereabouts = 'elsewhere' AND format IS NOT NULL"):
        place = files_folder(each.folder)
        if place is not None and place.resolve() == wanted:
            manifest = read_manifest(each.manifest)
            refuse_invalid(manifest, each.manifest, "take the mark back: tools/inventory revalidate")
            return manifest
    return None
