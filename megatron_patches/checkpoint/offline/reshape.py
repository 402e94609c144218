"""Another layout of a checkpoint's files: fewer or more of them, the same elements."""

from pathlib import Path

from megatron_patches.artefacts.folders import TRAINER_STATE
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors
from megatron_patches.checkpoint.offline.writing import OfflineContent, write_offline
from megatron_patches.checkpoint.tokenizer_files.travelling import stored_tokenizer
from megatron_patches.errors import TrainyardError


def reshape_checkpoint(source: Path, target: Path, files: int, weights_only: bool) -> Manifest:
    """Write a whole checkpoint anew into the folder `target`, in so many files of each sort.

    Every fact goes along; the new checkpoint's parent is the old one. One of weights alone says so, as those do that a
    run saves (`content`): it can be read and exported, not resumed.

    Raises:
        TrainyardError: as `write_offline` does; files of the source's tokenizer are damaged, or it has no optimizer's
            state to leave out.
    """
    manifest = read_manifest(source / MANIFEST)
    tensors = stored_tensors(source, manifest)
    if weights_only:
        kept = [tensor for tensor in tensors if tensor.kind == "weight"]
        if len(kept) == len(tensors):
            raise TrainyardError(f"{source} holds weights only already; leave out --weights-only")
        tensors = kept
    alone = all(tensor.kind == "weight" for tensor in tensors)
    content = OfflineContent(
        facts={**manifest.facts, "content": "weights" if alone else "full"},
        trainer=None if alone else (source / TRAINER_STATE).read_bytes(),
        config=(source / CONFIG).read_bytes(),
        parents=(manifest.id,),
        tokenizer=stored_tokenizer(source, manifest),
    )
    return write_offline(target, tensors, files, content)
