"""Collections of the library `datasets` as sources of documents: streamed, copied first, or on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import JsonValue

from data_tools.reading.block import Part
from data_tools.reading.documents import BLOCK_BYTES
from data_tools.reading.hugging_face_client import Patience, offline, use_patience
from data_tools.reading.hugging_face_failures import opening_failures
from data_tools.reading.hugging_face_files import DataFiles, files_of_folder, files_of_hub
from data_tools.reading.hugging_face_name import PREFIX, HubSpec, chosen_split
from data_tools.reading.hugging_face_parts import ROWS_AT_ONCE, CheckedCast, StoredRows, StreamedShard
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.printable import printable, shortened

if TYPE_CHECKING:
    import datasets

PART_BYTES = 256 << 20
"""bytes of a dataset on disk that make one part"""


class HubDataset(NamedTuple):
    """One split of a dataset, opened."""

    splits: tuple[str, ...]
    """all that there are, for `evaluation_split`"""
    split: str
    """the one that is read"""
    identity: dict[str, JsonValue]
    """what manifests record: name, configuration, split, columns, and the commit or the fingerprint it is read at"""
    rows: int | None
    """how many it holds, as its description says; None where that shows only at its end"""
    shards: tuple[Part, ...]

    def parts(self) -> list[Part]:
        """Its shards, in order."""
        return list(self.shards)


def open_hub(
    spec: HubSpec,
    split: str | None = None,
    columns: Sequence[str] = ("text",),
    revision: str | None = None,
    streaming: bool = True,
    timeout_seconds: float = 60.0,
    retries: int = 5,
) -> HubDataset:
    """Opens one split of a dataset. Programs that datasets bring along are never run.

    Args:
        split: its name; None is the one for training.
        columns: what is read of it.
        revision: commit, branch or tag on the hub; None is the newest.
        streaming: read it as it is needed; False copies the files of the split below HF_HOME first. With
            HF_HUB_OFFLINE=1 a whole copy there is read. Shards and positions are the same in all three cases.
        timeout_seconds: the longest wait for an answer.
        retries: further tries after one that failed, each after a longer pause.

    Raises:
        Missing: no such dataset, configuration, split or column.
        Refused: it is a program that makes data; or a revision is asked for of a folder.
        Damaged: a folder or file is not what the library wrote.
        TrainyardError: the hub does not answer, or refuses.
    """
    patience = Patience(timeout_seconds, retries)
    use_patience(patience)
    told = f"{PREFIX}{shortened(printable(spec.location))}"
    folder = spec.folder
    if folder is not None and revision is not None:
        raise Refused(f"{told} is a folder, and has no revision {revision!r}; leave out the revision")
    if folder is not None and _is_saved(folder):
        return _saved(spec, folder, told, split, columns)
    with opening_failures(told, spec.name, revision):
        if folder is not None:
            files = files_of_folder(folder, spec.configuration)
        else:
            files = files_of_hub(spec.location, spec.configuration, revision, offline())
        return _of_files(spec, files, told, split, columns, streaming, patience)


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` made it."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved(spec: HubSpec, folder: Path, told: str, split: str | None, columns: Sequence[str]) -> HubDataset:
    """What `save_to_disk` wrote: of a single dataset, the split is the one its description names."""
    import datasets

    if spec.configuration is not None:
        raise Refused(f"{told} was saved from one configuration; leave out #{spec.configuration}")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = shortened(printable(" ".join(str(error).split())), 400)
        raise Damaged(f"{told} is not what save_to_disk wrote ({why}); save it again") from error
    several = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split or "train"): loaded}
    splits = tuple(str(name) for name in several)
    chosen = chosen_split(split, splits, told)
    stored = several[chosen]
    _need_columns(columns, stored.column_names, f"{told}, {chosen}")
    stored = stored.select_columns(list(columns))
    identity = _identity(spec, chosen, columns, {"fingerprint": _fingerprint(folder, chosen, spec.name)})
    return HubDataset(splits, chosen, identity, len(stored), _stored_parts(spec, stored, told, chosen, columns))


def _fingerprint(folder: Path, split: str, name: str) -> str:
    """As it was saved: the library makes another one whenever columns are chosen."""
    own = folder / split / "state.json" if (folder / "dataset_dict.json").is_file() else folder / "state.json"
    try:
        return str(json.loads(own.read_text(encoding="utf-8"))["_fingerprint"])
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{PREFIX}{name}: {printable(own)} has no fingerprint ({error}); save it again") from error


def _stored_parts(
    spec: HubSpec, stored: "datasets.Dataset", told: str, split: str, columns: Sequence[str]
) -> tuple[Part, ...]:
    """Equal stretches of its rows, as many as its bytes ask for."""
    rows, size = len(stored), stored.data.nbytes
    number = max(1, min(rows, -(-size // PART_BYTES)))
    parts: list[Part] = []
    for index in range(number):
        first, behind = rows * index // number, rows * (index + 1) // number
        label = f"{index + 1:05d}-of-{number:05d}"
        parts.append(
            StoredRows(
                name=f"{spec.name}/{split}/{label}",
                origin=f"{told}, {split}, part {index + 1} of {number}",
                columns=tuple(columns),
                size=size * (behind - first) // max(1, rows),
                dataset=stored,
                first=first,
                rows=behind - first,
            )
        )
    return tuple(parts)


def _of_files(
    spec: HubSpec, files: DataFiles, told: str, split: str | None, columns: Sequence[str], streaming: bool,
    patience: Patience,
) -> HubDataset:  # fmt: skip
    chosen = chosen_split(split, files.splits, told)
    names = files.names(chosen)
    if not streaming:
        files.copy(chosen)
    builder = files.builder
    shards = builder.as_streaming_dataset(split=chosen)
    if shards.column_names is not None:
        _need_columns(columns, shards.column_names, f"{told}, {chosen}")
    _read_only(builder, columns)
    described = (builder.info.splits or {}).get(chosen)
    parts: list[Part] = []
    for index in range(shards.num_shards):
        number = f"{index + 1:05d}-of-{shards.num_shards:05d}"
        name = names[index] if len(names) == shards.num_shards else number
        parts.append(
            StreamedShard(
                name=f"{spec.name}/{chosen}/{name}",
                origin=f"{told}, {chosen}, shard {index + 1} of {shards.num_shards} ({name})",
                columns=tuple(columns),
                dataset=shards.shard(shards.num_shards, index),
                patience=patience,
            )
        )
    identity = _identity(spec, chosen, columns, files.identity(chosen))
    return HubDataset(files.splits, chosen, identity, described.num_examples if described else None, tuple(parts))


def _read_only(builder: Any, columns: Sequence[str]) -> None:
    """Fetches only these columns of files of columns, a little at a time; what the library makes of them is checked."""
    limits = {"columns": list(columns), "batch_size": ROWS_AT_ONCE, "chunksize": BLOCK_BYTES}
    for name in limits.keys() & vars(builder.config).keys():
        setattr(builder.config, name, limits[name])
    if hasattr(builder, "_cast_table"):
        builder._cast_table = CheckedCast(builder, tuple(columns))


def _need_columns(columns: Sequence[str], there: Sequence[str], told: str) -> None:
    if missing := [column for column in columns if column not in there]:
        raise Missing(
            f"{told} has no column {missing[0]!r}, only {shortened(', '.join(there) or 'none', 500)}; name one of them"
        )


def _identity(spec: HubSpec, split: str, columns: Sequence[str], version: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "name": spec.name, "configuration": spec.configuration, "split": split, "columns": list(columns), **version,
    }  # fmt: skip
