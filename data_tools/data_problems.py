"""What a run cannot do with its datasets, whatever amount of them it reads: ends of documents, vocabulary, answers."""

from collections.abc import Iterator, Sequence

import numpy as np

from data_tools.datasets.manifest import DatasetFacts, TokenizerFacts
from data_tools.opened_sources import Shard
from data_tools.plans.samples_config import FilteredSection, SamplesSection

ADOPTED_DOCUMENTS_LOOKED_AT = 100  # evenly over the file; each costs one read of a page


def end_of_document_problems(
    shards: Sequence[Shard], tokenizer: TokenizerFacts, needed_by: Sequence[str], not_ended: Sequence[str] = ()
) -> Iterator[str]:
    """Why the settings of a run that must see where documents end cannot.

    Args:
        needed_by: the settings, as people write them.
        not_ended: text sources whose documents get no end-of-document token.
    """
    if not needed_by:
        return
    need = f"{' and '.join(needed_by)} must see where documents end"
    if tokenizer.end_of_document is None:
        yield (
            f"{need}, and tokenizer {tokenizer.name} has no end-of-document token; set data.samples to packs or "
            "windows, which know their documents, take a tokenizer with one (a Hugging Face folder names it as "
            "eos_token in tokenizer_config.json) and run tools/preprocess with --append-eod, or change the setting"
        )
    elif not_ended:
        yield (f"{need}, and text.append_eod of source {not_ended[0]} is false; set it to true, or change the setting")
    elif chats := [shard.prefix for shard in shards if _ends_within_chats(shard.facts)]:
        yield (
            f"{need}, and in the chats of dataset {chats[0]} the token that ends documents may end each answer, "
            "so that a chat would be cut apart; change the setting"
        )
    elif (missing := _without_end_of_document(shards, tokenizer.end_of_document)) is not None:
        yield f"{need}, and {missing}; run tools/preprocess with --append-eod, or change the setting"


def _without_end_of_document(shards: Sequence[Shard], token: int) -> str | None:
    """What is wrong if the documents do not end with the token. How an adopted dataset was made is not known:
    then some of its documents are looked at.
    """
    found = (_lacks_end_of_document(shard, token) for shard in shards)
    return next((each for each in found if each is not None), None)


def _lacks_end_of_document(shard: Shard, token: int) -> str | None:
    if shard.facts.settings is not None:
        return None if shard.facts.settings.append_eod else f"dataset {shard.prefix} was made without --append-eod"
    for document, last in _some_last_tokens(shard):
        if last != token:
            return f"document {document} of dataset {shard.prefix} does not end with token {token}"
    return None


def other_tokenizer(shards: Sequence[Shard], tokenizer_id: str, name: str) -> Iterator[str]:
    """The first dataset that was made with another tokenizer than the run's, which has this id and name."""
    other = next((shard for shard in shards if shard.facts.tokenizer.id != tokenizer_id), None)
    if other is not None:
        theirs = other.facts.tokenizer
        yield (
            f"dataset {other.prefix} was made with tokenizer {theirs.name} ({theirs.id[:12]}), data.tokenizer {name} "
            f"is another one ({tokenizer_id[:12]}); name the dataset's own, or run tools/preprocess with this one"
        )


def documents_end_with(shard: Shard, token: int) -> bool:
    """Whether documents of a dataset end with a token as the one that ends documents. How an adopted dataset was made
    is not known: then some of its documents are looked at.
    """
    if shard.facts.settings is not None:
        return shard.facts.settings.append_eod and shard.facts.tokenizer.end_of_document == token
    return any(last == token for _, last in _some_last_tokens(shard))


def _some_last_tokens(shard: Shard) -> Iterator[tuple[int, int]]:
    """Number and last token of some documents that are not empty."""
    documents = shard.dataset.number_of_documents
    for document in np.unique(np.linspace(0, documents - 1, ADOPTED_DOCUMENTS_LOOKED_AT).astype(np.int64)).tolist():
        start, end = (shard.dataset.document_token_offset(document + after) for after in (0, 1))
        if end > start:
            yield document, int(shard.dataset.tokens[end - 1])


def _ends_within_chats(facts: DatasetFacts) -> bool:
    """Whether the end-of-document token may also end each answer within a chat."""
    settings, answers = facts.settings, facts.answers
    if settings is None or answers is None or settings.records != "chat":
        return False
    return settings.template != "plain" or answers.answers > facts.documents


def vocabulary_problems(shards: Sequence[Shard], vocab_size: int) -> Iterator[str]:
    """Token ids of datasets that a vocabulary of this size lacks."""
    for shard in shards:
        largest, tokenizer = shard.facts.largest_token_id, shard.facts.tokenizer
        if largest >= vocab_size:
            yield (
                f"dataset {shard.prefix} holds token id {largest}, model.vocab_size {vocab_size} has ids up to "
                f"{vocab_size - 1}; set model.vocab_size to {tokenizer.vocab_size} or more"
            )
        elif tokenizer.as_ids_alone and tokenizer.vocab_size > vocab_size:
            # No text shows such tokens, so a dataset may be without them; whoever added them wants them in a model.
            yield (
                f"tokenizer {tokenizer.name} of dataset {shard.prefix} was extended to {tokenizer.vocab_size} "
                f"ids, model.vocab_size {vocab_size} has ids up to {vocab_size - 1}; set model.vocab_size to "
                f"{tokenizer.vocab_size} or more"
            )


def tokenizer_problems(tokenizer: TokenizerFacts, vocab_size: int) -> Iterator[str]:
    """That a model lacks ids which a tokenizer may give raw text."""
    if tokenizer.vocab_size > vocab_size:
        yield (
            f"tokenizer {tokenizer.name} gives raw text ids up to {tokenizer.vocab_size - 1}, model.vocab_size "
            f"{vocab_size} has ids up to {vocab_size - 1}; set model.vocab_size to {tokenizer.vocab_size} or more"
        )


def answer_problems(shards: Sequence[Shard], samples: SamplesSection) -> Iterator[str]:
    """Pairs and chats that would be cut as if they were text, and a choice about answers where there are none."""
    records = [shard for shard in shards if shard.has_answers]
    if records and not isinstance(samples, FilteredSection):
        yield (
            f"dataset {records[0].prefix} holds records with answers, and data.samples {samples.name} would cut "
            "them apart and predict the questions too; set data.samples to packs"
        )
    elif not records and isinstance(samples, FilteredSection) and not samples.answers_only:
        yield "data.samples.answers_only: false has no effect: no dataset of the run holds pairs or chats; remove it"
