"""What `tools/preprocess` says of what it made."""

from typing import TYPE_CHECKING

from megatron_patches.sizes import counted

if TYPE_CHECKING:
    from data_tools.datasets.manifest import DatasetFacts
    from data_tools.datasets.preprocessing.preprocess import PreprocessSummary
    from data_tools.datasets.preprocessing.publishing import DatasetSummary

FEW_DOCUMENTS = 20  # a split of 949,50,1 leaves no document for validation
MOST_NAMED = 10
"""datasets that are told one by one; shards may be very many"""


def print_summary(summary: "PreprocessSummary") -> None:
    """Prints datasets, what was left out, and how fast it went."""
    from data_tools.reading.files.sources import describe_not_read

    for dataset in summary.datasets[:MOST_NAMED]:
        _print_dataset(dataset)
    if len(summary.datasets) > MOST_NAMED:
        tokens = sum(each.facts.tokens for each in summary.datasets)
        print(f"and {len(summary.datasets) - MOST_NAMED:,} more; {counted(tokens, 'token')} in all of them")
    _print_kept_and_left(summary)
    if summary.not_read:
        print(f"note: of the folders' files, {describe_not_read(summary.not_read)}")
    if summary.text_bytes:
        _print_speed(summary)


def _print_speed(summary: "PreprocessSummary") -> None:
    print(
        f"{summary.text_bytes / 1e6:,.1f} MB of text in {summary.seconds:,.1f} s: "
        f"{summary.megabytes_per_second:,.2f} MB/s, {summary.tokens_per_second:,.0f} tokens/s"
        + (f" ({summary.library})" if summary.library else "")
    )


def _print_dataset(dataset: "DatasetSummary") -> None:
    facts = dataset.facts
    empty = f", {facts.empty_documents:,} of them empty" if facts.empty_documents else ""
    print(
        f"{dataset.prefix}: {counted(facts.documents, 'document')}{empty}, {counted(facts.tokens, 'token')} of "
        f"{facts.dtype}, id {dataset.id[:12]}"
    )
    if facts.answers is not None:
        print(f"{counted(facts.answers.answers, 'answer')} of {counted(facts.answers.tokens, 'token')}")
    if facts.documents < FEW_DOCUMENTS:
        print(
            f"note: {counted(facts.documents, 'document')} may be too few to split into training and validation, "
            "since documents are never cut for it; a .txt file is one document, each line of a .jsonl another"
        )
    _print_arithmetic(facts)


def _print_kept_and_left(summary: "PreprocessSummary") -> None:
    facts = summary.datasets[0].facts
    if facts.left_out:
        which = "that was no document" if facts.left_out == 1 else "that were no documents"
        print(f"left out: {counted(facts.left_out, 'entry', 'entries')} {which} (--max-bad)")
    if facts.shortened_documents and facts.settings is not None:
        print(f"cut: {counted(facts.shortened_documents, 'document')} to {facts.settings.max_length:,} tokens")


def _print_arithmetic(facts: "DatasetFacts") -> None:
    from data_tools.domain_tokens.report import describe_injection

    if facts.settings is not None and (made := facts.settings.synthetic_documents):
        print(f"made up: {counted(made, 'document')} of multiplication facts among them")
    for name, told in describe_injection(facts.injection) if facts.injection is not None else ():
        print(f"{name}: {told}")
