"""Documents of raw text that a run is validated on, as a small dataset that ranks only open."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import DatasetFacts, SettingsFacts, describe_tokenizer, manifest_path
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Part
from data_tools.streams.settings import Encode
from data_tools.text.document_encoding import ids_type
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import FileRecord, build_manifest, write_manifest
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable


def write_first_documents(
    prefix: Path, parts: Sequence[Part], per_part: Sequence[int], encode: Encode, recipe: Recipe, tokenizer: Tokenizer
) -> str:
    """Writes the first documents of each part, and the manifest last; its id.

    Args:
        per_part: how many of each part.

    Raises:
        TrainyardError: the folder cannot be written to, or the documents hold no token.
    """
    empty = 0
    _make_folder(prefix.parent)
    manifest_path(prefix).unlink(missing_ok=True)
    with IndexedDatasetWriter(prefix, ids_type(tokenizer.vocab_size)) as writer:
        for part, wanted in zip(parts, per_part, strict=False):
            for tokens in islice(documents_of_part(part, encode), wanted):
                sequences = int(len(tokens) > 0)
                writer.add_documents(tokens, [len(tokens)] * sequences, [sequences])
                empty += not sequences
        if writer.largest_token is None:
            raise TrainyardError(f"the first documents of {parts[0].origin} hold no text; look at the file and the key")
        writer.finish()
    token_file, index = writer.files
    files = [
        FileRecord(path=bin_path(prefix).name, size=token_file.size, sha256=token_file.sha256),
        FileRecord(path=idx_path(prefix).name, size=index.size, sha256=index.sha256),
    ]
    facts = DatasetFacts(
        documents=writer.documents,
        sequences=writer.sequences,
        tokens=writer.tokens,
        dtype=writer.dtype.name,
        largest_token_id=int(writer.largest_token),
        empty_documents=empty,
        tokenizer=describe_tokenizer(tokenizer),
        settings=SettingsFacts(
            json_key=recipe.keys[0], json_keys=list(recipe.keys), append_eod=recipe.append_eod, parse_special=False
        ),
    )
    manifest = build_manifest("dataset", files, facts.model_dump(), [tokenizer.id])
    write_manifest(manifest_path(prefix), manifest)
    return manifest.id


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainyardError(
            f"{printable(folder)} cannot be made ({error.strerror}), and keeps the documents that the run is validated "
            "on; give this user the right to, or export TRAINYARD_RUNS=FOLDER, which names another place for runs"
        ) from None


def documents_of_part(part: Part, encode: Encode) -> Iterator[NDArray[np.int32]]:
    """The tokens of each document."""
    for _, encoded in encode(part.blocks()):
        yield from _documents_of(encoded)


def _documents_of(encoded: EncodedBlock) -> Iterator[NDArray[np.int32]]:
    for texts in encoded.texts:
        if texts.documents:  # of nothing, split makes a piece all the same
            yield from np.split(texts.tokens, texts.document_ends()[:-1])
