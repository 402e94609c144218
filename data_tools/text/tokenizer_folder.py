"""Writing the folder of a tokenizer: whole with its manifest, or not at all."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from megatron_patches.artefacts.manifest import MANIFEST, Manifest, build_manifest, record_file, write_manifest
from megatron_patches.atomic_files import fsync_folder, temporary_path, write_atomically


def write_tokenizer(
    output: Path,
    contents: Mapping[str, str],
    facts: Mapping[str, JsonValue],
    command: str,
    parents: Sequence[str] = (),
    check: Callable[[Path], None] = lambda folder: None,
) -> Manifest:
    """Writes the files and their manifest into a folder of a temporary name, then renames the folder.

    Args:
        contents: of the files, by name.
        check: looks at the folder before it gets its name; what it raises leaves nothing behind.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_path(output)
    folder.mkdir()
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content.encode())
        files = [record_file(folder / name, folder) for name in contents]
        manifest = build_manifest("tokenizer", files, facts, parents, command)
        write_manifest(folder / MANIFEST, manifest)
        check(folder)
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    fsync_folder(output.parent)
    return manifest
