"""A manifest for a dataset that something else made."""

from pathlib import Path

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, check_name_of, describe_tokenizer, manifest_path
from data_tools.datasets.scan import scan
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import Manifest, build_manifest, record_file, write_manifest
from megatron_patches.errors import TrainyardError


def adopt_dataset(prefix: Path, tokenizer_path: Path) -> Manifest:
    """Reads a dataset whole and writes its manifest, so that runs may use it.

    Raises:
        TrainyardError: it has a manifest already, it is damaged, or it holds ids the tokenizer does not have.
    """
    path = manifest_path(prefix)
    check_name_of(prefix)
    if path.exists():
        raise TrainyardError(f"{path} exists already; check it with tools/dataset verify {prefix}")
    tokenizer = load_tokenizer(tokenizer_path)
    dataset = IndexedDataset(prefix)
    found = scan(dataset)
    if found.largest_token_id >= tokenizer.vocab_size:
        raise TrainyardError(
            f"{dataset.bin_path} holds token id {found.largest_token_id}, tokenizer {tokenizer.name} has ids up to "
            f"{tokenizer.vocab_size - 1}; name the tokenizer that the dataset was made with"
        )
    facts = DatasetFacts(
        documents=dataset.number_of_documents,
        sequences=len(dataset),
        tokens=len(dataset.tokens),
        dtype=dataset.dtype.name,
        largest_token_id=found.largest_token_id,
        empty_documents=found.empty_documents,
        tokenizer=describe_tokenizer(tokenizer),
    )
    files = [record_file(file, prefix.parent) for file in (dataset.bin_path, dataset.idx_path)]
    command = f"tools/dataset adopt {prefix.name} --tokenizer {tokenizer.name}"
    manifest = build_manifest("dataset", files, facts.model_dump(), [tokenizer.id], command)
    write_manifest(path, manifest)
    return manifest
