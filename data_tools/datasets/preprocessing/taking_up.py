"""Work of earlier calls, unfinished or finished: whether it is that of the same request, and what becomes of it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from pydantic import JsonValue

from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.manifest import SettingsFacts, SourceFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.inputs import Inputs
from data_tools.datasets.preprocessing.notes import Note
from data_tools.datasets.preprocessing.publishing import DatasetSummary
from data_tools.datasets.preprocessing.request import PreprocessRequest
from data_tools.datasets.preprocessing.settings import command_of
from data_tools.datasets.preprocessing.tokenizing import new_reading
from data_tools.datasets.preprocessing.work_folder import WorkFolder
from data_tools.reading.block import Part
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

_STAGES = {"scatter": "being shuffled", "order": "being shuffled", "publish": "finished but for the names"}


def begun(asked: dict[str, JsonValue], keys: int) -> Note:
    """The note of a request of which nothing is done."""
    return Note(asked=asked, reading=new_reading(keys), part_began=new_reading(keys))


def taken_up(
    work: WorkFolder, asked: Mapping[str, JsonValue], overwrite: bool, tell: Callable[[str], None]
) -> Note | None:
    """Where to go on; None to start from the beginning.

    Raises:
        Damaged: the journal cannot be read.
        Refused: there is work of another request, or of files that have changed since, and nobody said to drop it.
    """
    try:
        note = work.read_note()
    except Damaged as error:
        if not overwrite:
            raise
        tell(f"note: {error}; it is removed")
        return None
    if note is None:
        return None
    done = f"{counted(note.reading.documents, 'document')} tokenized"
    changed = [name for name, value in asked.items() if note.asked.get(name) != value]
    if not changed:
        stage = _STAGES.get(note.stage)
        tell(f"note: continuing {printable(work.path)}: {done}{f', {stage}' if stage else ''}")
        return note
    named = f"{printable(work.path)} holds unfinished work ({done}, {work.size() / 1e6:,.1f} MB)"
    differs = " and ".join(changed)
    if not overwrite:
        raise Refused(
            f"{named} of another request: {differs} changed since. Repeat the earlier command to go on with it, or add "
            "--overwrite to drop it and start from the beginning"
        )
    tell(f"note: {named} of another request ({differs} changed since); it is removed, work starts from the beginning")
    return None


def finished(
    request: PreprocessRequest, inputs: Inputs, settings: Mapping[str, SettingsFacts], tokenizer: Tokenizer
) -> list[DatasetSummary] | None:
    """The datasets that are asked for, where their manifests show that the same command made them of the same inputs.

    Inputs are known by name, size, stretch, and a time of change before the manifest's; finished files by their sizes.

    Returns:
        None where that is not shown. It never is for shards, of which the last one is not known, and for collections of
        the Hugging Face library.
    """
    if request.shard_tokens is not None or inputs.collections:
        return None
    found = []
    for setting, prefix in zip(settings.values(), request.prefixes().values(), strict=True):
        try:
            manifest, facts = read_dataset_manifest(prefix)
        except TrainyardError:  # whatever lies there then, `refuse_what_is_there` names it
            return None
        asked = command_of(request, tokenizer), setting, tokenizer.id
        made = manifest.by.command, facts.settings, facts.tokenizer.id
        read = _are_read(inputs.parts, facts.sources, request.tokens is not None)
        changed = max(inputs.changed, default=0) >= manifest_path(prefix).stat().st_mtime_ns
        if made != asked or not read or changed or not _is_whole(manifest, prefix):
            return None
        found.append(DatasetSummary(prefix, manifest.id, facts))
    return found


def _are_read(parts: Sequence[Part], sources: Sequence[SourceFacts], stopped: bool) -> bool:
    """Whether the sources are the parts, or the first of them where reading stopped."""
    told = [(each.name, each.size, each.stretch) for each in sources]
    there = [(each.name, each.size, each.stretch) for each in parts]
    return all(one == other or (stopped and one is None) for one, other in zip_longest(told, there))


def _is_whole(manifest: Manifest, prefix: Path) -> bool:
    sizes = {each.path: each.size for each in manifest.files}
    files = bin_path(prefix), idx_path(prefix)
    return all(file.is_file() and sizes.get(file.name) == file.stat().st_size for file in files)
