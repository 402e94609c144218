"""The tokenizer that a checkpoint was trained with: from its own files, else from where it can still be found.
Torch-free.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer_files, tokenizer_id, travelling_files
from megatron_patches.artefacts.folders import TOKENIZER
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.manifest import Manifest, verify_files
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkout import CHECKOUT
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.printable import printable, storable
from megatron_patches.run.config import RunConfig


def own_tokenizer(folder: Path, manifest: Manifest, config: RunConfig) -> Tokenizer:
    """The tokenizer of a checkpoint, with the id that its identity names.

    Args:
        folder: of the checkpoint.
        manifest: the checkpoint's.
        config: the checkpoint's; it says whether a tokenizer that is marked invalid is taken.

    Raises:
        Damaged: the files that travelled with the checkpoint are not those that its manifest lists.
        Missing: none did, and no place where the tokenizer may be has one of that id.
        Refused: it is marked invalid.
    """
    return load_tokenizer_files(own_tokenizer_files(folder, manifest), config.data.allow_invalid)


def own_tokenizer_files(folder: Path, manifest: Manifest) -> TokenizerFiles:
    """Where the files of a checkpoint's tokenizer lie (`data_tools.text.tokenizers.travelling_files` names all of
    them, with templates and maps of special tokens). Files that travelled with the checkpoint come first, then the
    place that its `config.yaml` names, then tokenizers that the inventory knows.

    Raises:
        Damaged: files that travelled are not those that the manifest lists.
        Missing: none did, and no place has a tokenizer of that id.
    """
    identity = manifest.facts.get("identity")
    named = identity.get("tokenizer") if isinstance(identity, dict) else None
    wanted = named if isinstance(named, str) else ""
    configured = _configured(folder)
    if travelled := _travelled(folder, manifest, wanted):
        return travelled if configured is None else replace(travelled, name=storable(configured.name))
    places = [*([configured] if configured else []), *_catalogued(wanted)]
    for place in places:
        try:
            files = find_tokenizer(place)
            if tokenizer_id(files, allow_invalid=True) == wanted:
                return files
        except TrainyardError:  # moved, or changed since: the next place may have it
            continue
    looked = ", ".join(printable(each) for each in places) or "its config.yaml names none"
    raise Missing(
        f"{printable(folder)} was trained with tokenizer {printable(wanted[:12]) or 'not on record'}, which did not "
        f"travel with it and is not to be found ({looked}). Bring that tokenizer's folder back to where it was, or "
        "below the folder of data"
    )


def _travelled(folder: Path, manifest: Manifest, wanted: str) -> TokenizerFiles | None:
    """What lies in the checkpoint itself; None where an earlier version wrote it."""
    records = [file for file in manifest.files if file.path.startswith(f"{TOKENIZER}/")]
    if not records:
        return None
    remedy = "restore the checkpoint from a copy"
    if problems := verify_files(manifest.model_copy(update={"files": records}), folder, hashes=True):
        raise Damaged(f"{'; '.join(problems)}; {remedy}")
    files = find_tokenizer(folder / TOKENIZER)
    listed = {folder / file.path for file in records}
    if added := [path for path in travelling_files(files).values() if path not in listed]:
        raise Damaged(f"{printable(added[0])} is none of the checkpoint's files: somebody put it there; remove it")
    if (found := tokenizer_id(files, allow_invalid=True)) != wanted:
        raise Damaged(
            f"{printable(folder / TOKENIZER)} holds tokenizer {found[:12]}, and the checkpoint was trained with "
            f"{printable(wanted[:12]) or 'one that is not on record'}; {remedy}"
        )
    return files


def _configured(folder: Path) -> Path | None:
    section = read_yaml(folder / CONFIG).get("data")
    named = section.get("tokenizer") if isinstance(section, dict) else None
    return CHECKOUT / named if isinstance(named, str) else None


def _catalogued(wanted: str) -> Iterator[Path]:
    with open_catalogue() as catalogue:
        for each in catalogue.artefacts("id = ? AND kind = 'tokenizer'", [wanted]):
            yield each.folder
