"""What `tools/dataset info` shows."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, SettingsFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.split import SPLITS, split_documents
from data_tools.domain_tokens.report import describe_injection
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.sizes import counted
from tools.commands.dataset.decoded import own_tokenizer

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def contents(prefix: Path) -> list[tuple[str, str]]:
    """Counts and lengths of a dataset, and what its manifest adds."""
    dataset = IndexedDataset(prefix)
    lengths = dataset.document_lengths(0, dataset.number_of_documents)
    quantiles = np.quantile(lengths, QUANTILES, method="inverted_cdf")
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
    quantiles = np.quantile(lengths, QUANTILES, method="inverted_cdf").tolist()
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
        *_answers(facts),
        *_order_and_part(facts),
        *_left(facts),
        *_proof(manifest.by.proof),
        *(
            ("dataset of hf:" if number == 0 else "", _collection(each))
            for number, each in enumerate(facts.collections)
        ),
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
    if facts.settings.tokens_asked is not None:
        ending += f", reading stopped at {facts.settings.tokens_asked:,} tokens"
    if facts.settings.synthetic_documents != 0:
        ending += f", {_made_up(facts.settings)}"
    if facts.settings.inject is not None and facts.injection is None:
        ending += f", tokens of the multiplication table put in ({facts.settings.inject}), how many is not known"
    if facts.settings.records == "text":
        return f"texts of key {facts.settings.json_key}, {ending}, {facts.empty_documents:,} empty texts"
    what = "pairs of keys" if facts.settings.records == "pairs" else "chats of key"
    return f"{what} {facts.settings.json_key}, {_written_around(facts.settings)}, {ending}"


def _made_up(settings: SettingsFacts) -> str:
    made = settings.synthetic_documents
    number = "an unknown number of documents" if made is None else counted(made, "document")
    seed = "several seeds" if settings.synthetic_seed is None else f"seed {settings.synthetic_seed}"
    return f"{number} of multiplication facts made up from {seed}"


def _written_around(settings: SettingsFacts) -> str:
    digest = (settings.template_sha256 or "")[:12]
    if settings.template is None:
        return f"answers begin with '{shortened(settings.separator or '')}'"
    return {"plain": "the plain template", "tokenizer": "the tokenizer's template"}[settings.template] + f" ({digest})"


def _answers(facts: DatasetFacts) -> list[tuple[str, str]]:
    if facts.answers is None:
        return []
    share = f"{facts.answers.tokens / facts.tokens:.1%} of all"
    held = f"{counted(facts.answers.answers, 'answer')} of {counted(facts.answers.tokens, 'token')}, {share}"
    return [("answers", f"{held}: the odd-numbered sequences of each document")]


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
    """The text of the first tokens; of records each context and each answer on a line of its own, behind its name.

    Raises:
        TrainyardError: the tokenizer is not the dataset's, or lacks one of the tokens.
    """
    dataset = IndexedDataset(prefix)
    tokenizer = own_tokenizer(prefix, tokenizer_path)
    facts = read_dataset_manifest(prefix, allow_invalid=True)[1] if manifest_path(prefix).is_file() else None
    ids = dataset.tokens[:tokens].tolist()
    if ids and max(ids) >= tokenizer.vocab_size:
        raise TrainyardError(f"dataset {prefix} holds token id {max(ids)}, {tokenizer_path} does not; give its own")
    if facts is None or facts.answers is None:
        return tokenizer.decode(ids)
    return "\n".join(_first_sequences(dataset, len(ids), tokenizer))


def _first_sequences(dataset: IndexedDataset, tokens: int, tokenizer: Tokenizer) -> Iterator[str]:
    """The sequences of the first records, up to a number of tokens."""
    for document in range(dataset.number_of_documents):
        for number, (start, end) in enumerate(pairwise(dataset.document_boundaries(document).tolist())):
            if start >= tokens:
                return
            text = tokenizer.decode(dataset.tokens[start : min(end, tokens)].tolist())
            yield f"{document} {'answer' if number % 2 else 'context'}: {text}"


def _order_and_part(facts: DatasetFacts) -> list[tuple[str, str]]:
    """What was shuffled, and which part of all documents this dataset is."""
    settings, told = facts.settings, list[tuple[str, str]]()
    if settings is None:
        return told
    if settings.shuffle_seed is not None:
        told.append(("order", f"shuffled with seed {settings.shuffle_seed}"))
    if settings.share is not None:
        number, _, shares = settings.share.partition("/")
        told.append(("part", f"part {number} of {shares} of the sources (--shard), counted from 0"))
    if settings.shard is not None and settings.shard_tokens is not None:
        told.append(("shard", f"number {settings.shard} from 0, ended at {settings.shard_tokens:,} tokens"))
    return told


def _left(facts: DatasetFacts) -> list[tuple[str, str]]:
    """What of the sources is not in the dataset."""
    told = list[tuple[str, str]]()
    if facts.left_out:
        told.append(("left out", f"{counted(facts.left_out, 'entry', 'entries')} of the sources: no documents"))
    if facts.settings is not None and facts.settings.max_length is not None:
        cut = counted(facts.shortened_documents, "document")
        told.append(("cut", f"{cut} to {counted(facts.settings.max_length, 'token')}"))
    return told


def _proof(proof: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Which library made the ids, and what shows that they are the tokenizer's own."""
    if proof is None:
        return []
    own = f"the tokenizer's own library ({proof['reference']})"
    told = [("ids by", f"{proof['library']} {proof['version']}" if proof["documents"] else own)]
    if proof["documents"]:
        size = f"{counted(proof['documents'], 'text')} ({proof['text_bytes'] / 1e6:,.1f} MB)"
        told.append(("compared", f"{size} with {own}: the same ids"))
    again = proof["by_reference"]
    if again:
        more = f" and {len(again) - 5:,} more" if len(again) > 5 else ""
        told.append(
            ("encoded again", f"{', '.join(again[:5])}{more}, by its own library, because other ids were found")
        )
    return told


def _collection(collection: Mapping[str, Any]) -> str:
    """A dataset of the Hugging Face library in a line."""
    name = f"{collection['name']}{'#' + collection['configuration'] if collection['configuration'] else ''}"
    version = next((f"{key} {collection[key]}" for key in ("revision", "fingerprint") if key in collection), "")
    return f"{name}, split {collection['split']}, columns {', '.join(collection['columns'])}, {version}"
