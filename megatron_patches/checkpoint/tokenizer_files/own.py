"""The tokenizer that a checkpoint was trained with: from its own files, else from where it can still be found.
Torch-free.
"""

from collections.abc import Iterator
from pathlib import Path

from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer, tokenizer_id
from megatron_patches.artefacts.folders import TOKENIZER
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.manifest import Manifest, verify_files
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkout import CHECKOUT
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.run.config import RunConfig


def own_tokenizer(folder: Path, manifest: Manifest, config: RunConfig) -> Tokenizer:
    """The tokenizer of a checkpoint, with the id that its identity names.

    Args:
        folder: of the checkpoint.
        manifest: the checkpoint's.
        config: the checkpoint's; it says where the tokenizer lay, and whether one that is marked invalid is taken.

    Raises:
        Damaged: the files that travelled with the checkpoint are not those that its manifest lists.
        Missing: none did, and no place where the tokenizer may be has one of that id.
        Refused: it is marked invalid.
    """
    return load_tokenizer(own_tokenizer_files(folder, manifest).model, config.data.allow_invalid)


def own_tokenizer_files(folder: Path, manifest: Manifest) -> TokenizerFiles:
    """Where the files of a checkpoint's tokenizer lie; those beside them (templates, maps of special tokens) belong to
    it too. Files that travelled with the checkpoint come first, then the place that its configuration names, then
    tokenizers that the inventory knows.

    Raises:
        Damaged: files that travelled are not those that the manifest lists.
        Missing: none did, and no place has a tokenizer of that id.
    """
    raise NotImplementedError
