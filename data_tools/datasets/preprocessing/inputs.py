"""What a request reads: files and collections of the Hugging Face library as parts, and how they are known again."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from data_tools.datasets.preprocessing.request import PreprocessRequest
from data_tools.reading.block import Part
from data_tools.reading.files.shards import shard_of
from data_tools.reading.files.sources import NotRead, parts_of
from data_tools.reading.hugging_face_name import HubSpec, is_hub


class Inputs(NamedTuple):
    """All that is read, in order."""

    parts: list[Part]
    not_read: list[NotRead]
    """what the given folders hold beside documents"""
    collections: list[dict[str, JsonValue]]
    """datasets of the Hugging Face library among them"""
    known_by: list[JsonValue]
    """what differs where another thing is read: names, sizes and times of files, identities of collections"""
    changed: list[int]
    """when each file changed last, in ns"""


def inputs_of(request: PreprocessRequest) -> Inputs:
    """Finds what the request names.

    Raises:
        TrainyardError: an input is missing, of an unknown format, or lacks a column; the share is empty.
    """
    found = Inputs([], [], [], [], [])
    files: list[Path] = []
    for each in request.inputs:
        if not is_hub(str(each)):
            files.append(Path(each))
            continue
        _add_files(request, files, found)
        files = []
        _add_hub(request, str(each), found)
    _add_files(request, files, found)
    if request.share is None:
        return found
    return found._replace(parts=shard_of(found.parts, *request.share))


def _add_files(request: PreprocessRequest, files: Sequence[Path], found: Inputs) -> None:
    if not files:
        return
    form = request.records
    if form is None:
        parts, not_read = parts_of(files, request.keys, request.largest_document)
    else:
        parts, not_read = form.parts_of(files, request.largest_document)
    found.parts.extend(parts)
    found.not_read.extend(not_read)
    for part in parts:
        status = part.path.stat()
        found.known_by.append([part.name, status.st_size, status.st_mtime_ns])
        found.changed.append(status.st_mtime_ns)


def _add_hub(request: PreprocessRequest, name: str, found: Inputs) -> None:
    from data_tools.reading.hugging_face import open_hub

    opened = open_hub(HubSpec.parse(name), request.split, request.keys, request.revision, request.streaming)
    found.parts.extend(opened.parts())
    found.collections.append(opened.identity)
    found.known_by.append(opened.identity)
