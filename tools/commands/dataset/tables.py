"""What `tools/dataset info` shows."""

from pathlib import Path
from typing import Any

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.split import SPLITS, split_documents
from data_tools.domain_tokens.report import describe_injection
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted
from tools.commands.dataset.decoded import own_tokenizer

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def contents(prefix: Path) -> list[tuple[str, str]]:
    """Counts and lengths of a dataset, and what its manifest adds."""
    dataset = IndexedDataset(prefix)
    lengths = dataset.document_lengths(0, dataset.number_of_documents)
    quantiles = np.quantile(lengths, QUANTILES, method="nearest")
    facts = [
        ("dataset", str(prefix)),
        ("documents", f"{dataset.number_of_documents:,}"),
        ("without tokens", f"{np.count_nonzero(lengths == 0):,}"),
        ("sequences", f"{len(dataset):,}"),
        ("tokens", f"{len(dataset.tokens):,}"),
        ("type of a token", f"{dataset.dtype.name}, {dataset.bin_path.stat().st_size / 1e6:,.1f} MB in all"),
        (
            "tokens of a document",
            ", ".join(f"{share:.0%} {length:,.0f}" for share, length in zip(QUANTILES, quantiles, strict=True)),
        ),
    ]
    if manifest_path(prefix).is_file():
        return facts + _of_manifest(prefix)
    return [*facts, ("manifest", f"none; make one with tools/dataset adopt {prefix} --tokenizer DIR")]


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


def _of_manifest(prefix: Path) -> list[tuple[str, str]]:
    manifest, facts = read_dataset_manifest(prefix)
    sources = [f"{each.name}: {counted(each.documents, 'document')}" for each in facts.sources[:10]]
    if more := len(facts.sources) - len(sources):
        sources.append(f"and {more:,} more")
    told = [
        ("id", manifest.id),
        ("made", f"{manifest.created} by {manifest.by.command}"),
        ("revision", manifest.by.describe_revision()),
        ("largest token id", f"{facts.largest_token_id:,}"),
        ("tokenizer", f"{facts.tokenizer.name} of {facts.tokenizer.vocab_size:,} ids, {facts.tokenizer.id}"),
        ("settings", _settings(facts)),
        *(("sources" if number == 0 else "", line) for number, line in enumerate(sources)),
    ]
    if facts.injection is not None:
        told += describe_injection(facts.injection)
    if facts.number_not_read:
        named = facts.not_read[:5]
        rest = f" and {more:,} more" if (more := facts.number_not_read - len(named)) else ""
        told.append(("not read", f"{counted(facts.number_not_read, 'file')} of the folders: {', '.join(named)}{rest}"))
    return told


def _settings(facts: DatasetFacts) -> str:
    if facts.settings is None:
        return "unknown: the dataset was adopted"
    ending = "end-of-document appended" if facts.settings.append_eod else "no end-of-document appended"
    if facts.settings.parse_special:
        ending += ", text that spells control tokens parsed"
    if facts.settings.synthetic_documents:
        ending += (
            f", {counted(facts.settings.synthetic_documents, 'document')} of multiplication facts made up from seed "
            f"{facts.settings.synthetic_seed}"
        )
    return f"texts of key {facts.settings.json_key}, {ending}, {facts.empty_documents:,} empty texts"


SPLIT_HEAD = ["split", "documents", "from", "to", "tokens"]


def split_rows(prefix: Path, split: str) -> list[list[str]]:
    """Documents and tokens of training, validation and test, in the order of `SPLIT_HEAD`."""
    dataset = IndexedDataset(prefix)
    rows = []
    for name, (first, last) in zip(SPLITS, split_documents(split, dataset.number_of_documents), strict=True):
        tokens = dataset.document_token_offset(last) - dataset.document_token_offset(first)
        rows.append([name, f"{last - first:,}", f"{first:,}", f"{last:,}", f"{tokens:,}"])
    return rows


def beginning(prefix: Path, tokens: int, tokenizer_path: Path) -> str:
    """The text of the first tokens.

    Raises:
        TrainyardError: the tokenizer is not the dataset's, or lacks one of the tokens.
    """
    dataset = IndexedDataset(prefix)
    tokenizer = own_tokenizer(prefix, tokenizer_path)
    ids = dataset.tokens[:tokens].tolist()
    if ids and max(ids) >= tokenizer.vocab_size:
        raise TrainyardError(f"dataset {prefix} holds token id {max(ids)}, {tokenizer_path} does not; give its own")
    return tokenizer.decode(ids)
