"""Whether a dataset is what its manifest says, byte for byte."""

from pathlib import Path

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, read_dataset_manifest
from data_tools.datasets.scan import scan
from megatron_patches.artefacts.manifest import verify_files
from megatron_patches.errors import TrainyardError


def verify_dataset(prefix: Path) -> DatasetFacts:
    """Reads both files whole and compares hashes, structure, token ids and counts with the manifest.

    Raises:
        TrainyardError: anything differs; every difference found at this stage is named.
    """
    dataset = IndexedDataset(prefix)
    manifest, facts = read_dataset_manifest(prefix)
    problems = verify_files(manifest, prefix.parent, hashes=True)
    found = scan(dataset)
    stated_and_found: dict[str, tuple[int | str, int | str]] = {
        "documents": (facts.documents, dataset.number_of_documents),
        "sequences": (facts.sequences, len(dataset)),
        "tokens": (facts.tokens, len(dataset.tokens)),
        "dtype": (facts.dtype, dataset.dtype.name),
        "largest token id": (facts.largest_token_id, found.largest_token_id),
    }
    if facts.answers is not None:
        answers = dataset.count_answers()
        stated_and_found["answers"] = (facts.answers.answers, answers.answers)
        stated_and_found["tokens of answers"] = (facts.answers.tokens, answers.tokens)
    problems += [
        f"{name}: {actual} found, the manifest says {stated}"
        for name, (stated, actual) in stated_and_found.items()
        if stated != actual
    ]
    if found.largest_token_id >= facts.tokenizer.vocab_size:
        problems.append(
            f"token id {found.largest_token_id} lies beyond the {facts.tokenizer.vocab_size} ids of tokenizer "
            f"{facts.tokenizer.name}"
        )
    if problems:
        raise TrainyardError(f"dataset {prefix}: {'; '.join(problems)}. Copy it again, or run tools/preprocess again")
    return facts
