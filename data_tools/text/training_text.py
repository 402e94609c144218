"""The text that a tokenizer is trained on, and what its manifest says of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.entries import read_documents
from data_tools.reading.files.sources import NOT_READ_NAMED, FoundParts, parts_of
from megatron_patches.atomic_files import hash_file


class TrainingText:
    """Files of documents, which may be read several times.

    Args:
        files: sources as `parts_of` takes them.
        largest_document: bytes; longer ones are refused.
        on_found: hears what is read, and what is not.

    Raises:
        TrainyardError: there is nothing to read, or it is of an unknown format.
    """

    def __init__(
        self,
        files: Sequence[Path],
        json_key: str = "text",
        largest_document: int = LARGEST_DOCUMENT,
        on_found: Callable[[FoundParts], None] = lambda found: None,
    ) -> None:
        self.names = [path.name for path in files]
        self._key, self._largest = json_key, largest_document
        self._found = parts_of(files, [json_key], largest_document)
        on_found(self._found)

    def texts(self) -> Iterator[str]:
        """Each document's text, in the order of files and documents."""
        for part in self._found.parts:
            for (text,) in read_documents(part, [self._key], self._largest):
                yield text

    def facts(self) -> dict[str, JsonValue]:
        """Which text it was: the files with their hashes, and those of folders that were not read."""
        not_read = self._found.not_read
        sources: list[JsonValue] = []
        for part in self._found.parts:
            sha256, size = hash_file(part.path)
            sources.append({"name": part.name, "size": size, "sha256": sha256})
        return {
            "json_key": self._key,
            "sources": sources,
            "not_read": [each.name for each in not_read[:NOT_READ_NAMED]],
            "number_not_read": len(not_read),
        }
