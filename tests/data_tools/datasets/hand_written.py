"""Datasets spelled out byte by byte, with documents of several sequences and manifests of invented tokenizers."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset_format import DTYPES, HEADER, MAGIC, bin_path, idx_path
from data_tools.datasets.manifest import DatasetFacts, SettingsFacts, TokenizerFacts, manifest_path
from megatron_patches.artefacts import manifest as manifests
from megatron_patches.artefacts.manifest import Manifest, build_manifest, record_file, write_manifest
from megatron_patches.artefacts.provenance import Revision

Documents = Sequence[Sequence[Sequence[int]]]
"""Documents of sequences of token ids."""
VOCAB_SIZE = 1 << 40


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder for one example of many: datasets are made in it without asking git, nor waiting for the disk."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "known_revision", lambda checkout: Revision("0" * 40))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield Path(folder)


def write_sequences(prefix: Path, documents: Documents, code: int = 8) -> Path:
    """Writes `.bin` and `.idx` as the format's description has them; the prefix."""
    dtype = DTYPES[code]
    sequences = [sequence for document in documents for sequence in document]
    lengths = [len(sequence) for sequence in sequences]
    firsts = list(accumulate((len(document) for document in documents), initial=0))
    starts = list(accumulate((length * dtype.itemsize for length in lengths), initial=0))[:-1]
    index = HEADER.pack(MAGIC, 1, code, len(lengths), len(firsts)) + np.array(lengths, "<i4").tobytes()
    idx_path(prefix).write_bytes(index + np.array(starts, "<i8").tobytes() + np.array(firsts, "<i8").tobytes())
    bin_path(prefix).write_bytes(np.array([token for each in sequences for token in each], dtype).tobytes())
    return prefix


def with_manifest(
    prefix: Path,
    documents: Documents,
    code: int = 8,
    tokenizer: str = "t",
    settings: SettingsFacts | None = None,
    **changed: Any,
) -> Path:
    """Writes the same, and a manifest that fits; the prefix."""
    write_sequences(prefix, documents, code)
    state_manifest(prefix, documents, code, tokenizer, settings, **changed)
    return prefix


def state_manifest(
    prefix: Path, documents: Documents, code: int, tokenizer: str, settings: SettingsFacts | None, **changed: Any
) -> Manifest:
    """Writes a manifest of files that are there; `changed` are facts that it states in place of the true ones."""
    lengths = [sum(map(len, document)) for document in documents]
    bare = 1 if settings is not None and settings.append_eod else 0
    facts = DatasetFacts(
        documents=len(documents),
        sequences=sum(map(len, documents)),
        tokens=sum(lengths),
        dtype=DTYPES[code].name,
        largest_token_id=int(max(token for document in documents for sequence in document for token in sequence)),
        empty_documents=lengths.count(bare),
        tokenizer=TokenizerFacts(id=tokenizer * 64, name=f"of-{tokenizer}", vocab_size=VOCAB_SIZE, end_of_document=0),
        settings=settings,
    ).model_copy(update=changed)
    files = [record_file(path(prefix), prefix.parent) for path in (bin_path, idx_path)]
    manifest = build_manifest("dataset", files, facts.model_dump(), [tokenizer * 64], "by hand")
    write_manifest(manifest_path(prefix), manifest)
    return manifest


def contents(prefix: Path) -> tuple[bytes, bytes]:
    """The bytes of `.bin` and `.idx`."""
    return bin_path(prefix).read_bytes(), idx_path(prefix).read_bytes()


@st.composite
def some_documents(draw: st.DrawFn, largest: int = 127, most: int = 12) -> list[list[list[int]]]:
    """A few documents, some without sequences, some whose sequences are empty; at least one token in all."""
    sequence = st.lists(st.integers(0, largest), max_size=4)
    documents = draw(st.lists(st.lists(sequence, max_size=4), min_size=1, max_size=most))
    if not any(map(sum, ([len(each) for each in document] for document in documents))):
        documents.insert(draw(st.integers(0, len(documents))), [[draw(st.integers(0, largest))]])
    return documents
