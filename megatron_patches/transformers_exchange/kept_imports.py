"""Where imports for a run's launches are kept, one folder for each content of a folder of transformers. Torch-free."""

import hashlib
from pathlib import Path

from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.run_folder import RunFolder, rehearsal_of
from megatron_patches.atomic_files import hash_file
from megatron_patches.checkout import runs_root
from megatron_patches.foreign.files import names_in
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.folder import CONFIG_FILE
from megatron_patches.transformers_exchange.import_plan import ImportPlan

_PREFIX = "transformers-"
_DIGITS = 16
"""of a key: two contents of one run share the first 16 of 64 once in 2^32 imports or so"""


def content_key(plan: ImportPlan) -> str:
    """sha256 of what an import is made of: configuration, weights, tokenizer. Reads every byte of the weights."""
    path = plan.found.folder.path
    files = sorted({each.file for each in plan.found.folder.tensors.values()} | {path / CONFIG_FILE})
    whole = hashlib.sha256(plan.tokenizer_id.encode())
    for file in files:
        whole.update(f"{file.name}\0{hash_file(file)[0]}\n".encode())
    return whole.hexdigest()


def place_of(key: str, config: RunConfig) -> Path:
    """The folder of an import for a run's launches, whether it exists or not; a rehearsal takes its run's."""
    return _shelf(config) / f"{_PREFIX}{key[:_DIGITS]}"


def earlier_import(plan: ImportPlan, config: RunConfig) -> Path | None:
    """The import of the same content that an earlier launch of the run made; nothing is hashed where there is none."""
    shelf = _shelf(config)
    if not shelf.is_dir() or not any(each.startswith(_PREFIX) for each in names_in(shelf)):
        return None
    place = place_of(content_key(plan), config)
    return place if is_finished(place) else None


def is_finished(place: Path) -> bool:
    """Whether an import's folder is there, which is whole when it has its name."""
    return (place / MANIFEST).is_file()


def _shelf(config: RunConfig) -> Path:
    return RunFolder(runs_root() / (rehearsal_of(config.name) or config.name)).imports
