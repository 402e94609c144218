"""What `tools/dataset info` shows."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Column, Table

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.split import SPLITS, split_documents
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def contents_table(prefix: Path) -> Table:
    """Counts and lengths of a dataset, and what its manifest adds."""
    dataset = IndexedDataset(prefix)
    lengths = dataset.document_lengths(0, dataset.number_of_documents)
    quantiles = np.quantile(lengths, QUANTILES, method="nearest")
    table = Table("", Column(overflow="fold"), title=str(prefix), show_header=False)
    table.add_row("documents", f"{dataset.number_of_documents:,}")
    table.add_row("without tokens", f"{np.count_nonzero(lengths == 0):,}")
    table.add_row("sequences", f"{len(dataset):,}")
    table.add_row("tokens", f"{len(dataset.tokens):,}")
    table.add_row("type of a token", f"{dataset.dtype.name}, {dataset.bin_path.stat().st_size / 1e6:,.1f} MB in all")
    table.add_row(
        "tokens of a document",
        ", ".join(f"{share:.0%} {length:,.0f}" for share, length in zip(QUANTILES, quantiles, strict=True)),
    )
    if manifest_path(prefix).is_file():
        _add_manifest(table, prefix)
    else:
        table.add_row("manifest", f"none; make one with tools/dataset adopt {prefix} --tokenizer DIR")
    return table


def describe(prefix: Path, split: str, show: int, tokenizer: Path | None) -> dict[str, Any]:
    """The same as values."""
    dataset = IndexedDataset(prefix)
    lengths = dataset.document_lengths(0, dataset.number_of_documents)
    quantiles = np.quantile(lengths, QUANTILES, method="nearest").tolist()
    described: dict[str, Any] = {
        "prefix": str(prefix),
        "documents": dataset.number_of_documents,
        "without_tokens": int(np.count_nonzero(lengths == 0)),
        "sequences": len(dataset),
        "tokens": len(dataset.tokens),
        "dtype": dataset.dtype.name,
        "bytes": dataset.bin_path.stat().st_size,
        "document_lengths": {f"{share:.0%}": length for share, length in zip(QUANTILES, quantiles, strict=True)},
        "manifest": None,
    }
    if manifest_path(prefix).is_file():
        manifest, _ = read_dataset_manifest(prefix)
        described["manifest"] = manifest.model_dump(mode="json")
    if split:
        described["split"] = {
            name: {
                "first": first,
                "last": last,
                "tokens": dataset.document_token_offset(last) - dataset.document_token_offset(first),
            }
            for name, (first, last) in zip(SPLITS, split_documents(split, dataset.number_of_documents), strict=True)
        }
    if tokenizer is not None:
        described["beginning"] = beginning(prefix, show, tokenizer)
    return described


def _add_manifest(table: Table, prefix: Path) -> None:
    manifest, facts = read_dataset_manifest(prefix)
    table.add_row("id", manifest.id)
    table.add_row("made", f"{manifest.created} by {manifest.by.command}")
    table.add_row("revision", manifest.by.describe_revision())
    table.add_row("largest token id", f"{facts.largest_token_id:,}")
    table.add_row("tokenizer", f"{facts.tokenizer.name} of {facts.tokenizer.vocab_size:,} ids, {facts.tokenizer.id}")
    table.add_row("settings", _settings(facts))
    table.add_row(
        "sources", "\n".join(f"{each.name}: {counted(each.documents, 'document')}" for each in facts.sources[:10])
    )
    if len(facts.sources) > 10:
        table.add_row("", f"and {len(facts.sources) - 10} more")
    if facts.number_not_read:
        told = ", ".join(printable(name) for name in facts.not_read[:5])
        table.add_row("not read", f"{counted(facts.number_not_read, 'file')} of the folders: {told}")


def _settings(facts: DatasetFacts) -> str:
    if facts.settings is None:
        return "unknown: the dataset was adopted"
    ending = "end-of-document appended" if facts.settings.append_eod else "no end-of-document appended"
    if facts.settings.parse_special:
        ending += ", text that spells control tokens parsed"
    return f"texts of key {facts.settings.json_key}, {ending}, {facts.empty_documents:,} empty texts"


def split_table(prefix: Path, split: str) -> Table:
    """Documents and tokens of training, validation and test."""
    dataset = IndexedDataset(prefix)
    table = Table("split", "documents", "from", "to", "tokens", title=f"split {split}")
    ranges = split_documents(split, dataset.number_of_documents)
    for name, (first, last) in zip(SPLITS, ranges, strict=True):
        tokens = dataset.document_token_offset(last) - dataset.document_token_offset(first)
        table.add_row(name, f"{last - first:,}", f"{first:,}", f"{last:,}", f"{tokens:,}")
    return table


def beginning(prefix: Path, tokens: int, tokenizer_path: Path) -> str:
    """The text of the first tokens.

    Raises:
        TrainyardError: the tokenizer is not the dataset's, or lacks one of the tokens.
    """
    dataset = IndexedDataset(prefix)
    tokenizer = load_tokenizer(tokenizer_path)
    if manifest_path(prefix).is_file():
        _, facts = read_dataset_manifest(prefix)
        if facts.tokenizer.id != tokenizer.id:
            raise TrainyardError(
                f"dataset {prefix} was made with tokenizer {facts.tokenizer.name} ({facts.tokenizer.id[:12]}), "
                f"{tokenizer_path} is another one ({tokenizer.id[:12]}); give the dataset's own"
            )
    ids = dataset.tokens[:tokens].tolist()
    if ids and max(ids) >= tokenizer.vocab_size:
        raise TrainyardError(f"dataset {prefix} holds token id {max(ids)}, {tokenizer_path} does not; give its own")
    return tokenizer.decode(ids)
