"""The part of a checkpoint that a model is read from: everything but the optimizer's state."""

import re
from pathlib import PurePosixPath

from megatron_patches.artefacts.folders import TOKENIZER
from megatron_patches.artefacts.manifest import FileRecord, Manifest, content_id
from megatron_patches.errors import Refused

_OPTIMIZER = re.compile(
    r"optimizer.*|.*optim_states\.pt|.*optim_rng\.pt|distrib_optim\.pt|scheduler\.pt|rng_state.*|scaler\.pt"
)


def is_optimizer_file(path: str) -> bool:
    """Whether a file holds state that only a resume needs, by its name, whoever wrote it."""
    if path.startswith(f"{TOKENIZER}/"):  # a vocabulary may be called as it likes
        return False
    return _OPTIMIZER.fullmatch(PurePosixPath(path).name) is not None


def weights_of(manifest: Manifest) -> Manifest:
    """The manifest of a full checkpoint's weights, a child of it. Whoever makes it makes the same bytes.

    Raises:
        Refused: the checkpoint cannot be taken apart by files.
    """
    if manifest.facts.get("content") == "weights":
        return manifest
    files: list[FileRecord] = [file for file in manifest.files if not is_optimizer_file(file.path)]
    if len(files) == len(manifest.files) and manifest.facts.get("format") in ("lightning", "megatron"):
        raise Refused(
            f"the {manifest.facts['format']} checkpoint {manifest.id[:12]} holds weights and optimizer in one file; "
            "copy it whole, without --weights-only"
        )
    facts = {**manifest.facts, "content": "weights"}
    parents = [manifest.id, *manifest.parents]
    return manifest.model_copy(
        update={
            "id": content_id(manifest.kind, parents, files, facts),
            "files": files,
            "facts": facts,
            "parents": parents,
        }
    )
