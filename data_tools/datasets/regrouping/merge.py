"""Several datasets made one: the documents of each in turn, in constant memory."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.datasets.manifest import AnswerFacts, DatasetFacts, SettingsFacts, SourceFacts
from data_tools.datasets.regrouping.stretches import StretchWriter, check_output, place_of
from data_tools.datasets.regrouping.verified_input import VerifiedInput, open_input
from data_tools.domain_tokens.report import joined_facts
from data_tools.reading.files.sources import NOT_READ_NAMED
from megatron_patches.artefacts.manifest import Manifest, build_manifest
from megatron_patches.errors import refuse
from megatron_patches.foreign.printable import storable

SOURCES_NAMED = 10_000
"""files that a merged dataset's manifest names at most, a few MB; the manifests of its parents have the others"""
INPUTS_IN_COMMAND = 20

_OF_ORIGIN = {"json_key", "json_keys", "tokens_asked", "synthetic_documents", "synthetic_seed"}
"""settings in which datasets may differ: they say where documents came from, not what they are"""


def merge_datasets(
    inputs: Sequence[Path],
    output: Path,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Manifest, DatasetFacts]:
    """Writes the documents of all datasets, in the order given, as one dataset; documents keep their sequences.

    Tokens have the narrowest type that holds those of every input, so shards of one dataset become its very bytes.

    Args:
        on_progress: called with the bytes of tokens that were read, and those of all inputs.

    Raises:
        TrainyardError: an input is missing, named twice or a copy of another, damaged, invalid or without a manifest;
            tokenizers or settings differ; the output is an input or exists. Nothing appears under its name then.
    """
    refuse(_repeated([place_of(each) for each in inputs], inputs))
    check_output(output, inputs, overwrite)
    opened = [open_input(each) for each in inputs]
    refuse(_repeated([each.id for each in opened], inputs))
    refuse(_tokenizer_problems(opened))
    settings = _settings(opened)
    output.parent.mkdir(parents=True, exist_ok=True)
    total = sum(each.whole.number_of_tokens * each.whole.dtype.itemsize for each in opened)
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        on_progress(done, total)

    writer = StretchWriter(output, np.result_type(*(each.whole.dtype for each in opened)))
    try:
        for each in opened:
            writer.add(each.whole, each.digest, count)
            each.check_tokens()
        writer.finish()
        facts = _facts(opened, writer, settings)
        parents = [*(each.id for each in opened), facts.tokenizer.id]
        manifest = build_manifest("dataset", writer.files(), facts.model_dump(), parents, _command(output, inputs))
        writer.publish(manifest)
    finally:
        writer.discard()  # after publish there is nothing left to remove
    return manifest, facts


def _repeated(what: Sequence[object], inputs: Sequence[Path]) -> Iterator[str]:
    """Inputs that are what an earlier one is: links to it, or copies, whose documents would be read twice.

    Args:
        what: each input is.
    """
    earlier: dict[object, int] = {}
    for number, each in enumerate(inputs):
        place = earlier.setdefault(what[number], number)
        if place != number:
            first = inputs[place]
            same = "is named twice" if first == each else f"is the same dataset as {first}"
            yield f"{each} {same}; name each dataset once: how often a run reads it, its sources' weights say"


def _tokenizer_problems(inputs: Sequence[VerifiedInput]) -> list[str]:
    first = inputs[0]
    own = first.facts.tokenizer
    return [
        f"dataset {each.prefix} was made with tokenizer {each.facts.tokenizer.name} ({each.facts.tokenizer.id[:12]}), "
        f"{first.prefix} with {own.name} ({own.id[:12]}): one dataset has one tokenizer; make one of them again with "
        "the other's"
        for each in inputs[1:]
        if each.facts.tokenizer.id != own.id
    ]


def _settings(inputs: Sequence[VerifiedInput]) -> SettingsFacts | None:
    """The settings of all inputs; None where those of one, which was adopted, are unknown.

    Raises:
        TrainyardError: they differ in what a document is, such as whether it ends with a token of its own.
    """
    known = [(each.prefix, each.facts.settings) for each in inputs if each.facts.settings is not None]
    if not known:
        return None
    prefix, first = known[0]
    refuse(
        f"dataset {other} was made with {name} {getattr(settings, name)}, {prefix} with {getattr(first, name)}: a run "
        "would read two kinds of documents; make one of them again with tools/preprocess as the other"
        for other, settings in known[1:]
        for name in SettingsFacts.model_fields
        if name not in _OF_ORIGIN and getattr(settings, name) != getattr(first, name)
    )
    if len(known) < len(inputs):
        return None
    if len(known) == 1:
        return first
    each = [settings for _, settings in known]
    made_up = _sum_of_known([settings.synthetic_documents for settings in each])
    seeds = {settings.synthetic_seed for settings in each if settings.synthetic_documents != 0}
    changed: dict[str, Any] = {
        "tokens_asked": None,
        "synthetic_documents": made_up,
        "synthetic_seed": seeds.pop() if len(seeds) == 1 else None,
    }
    if any((settings.json_key, settings.json_keys) != (first.json_key, first.json_keys) for settings in each):
        keys = ",".join(dict.fromkeys(settings.json_key for settings in each))
        changed |= {"json_key": keys, "json_keys": [keys]}
    return first.model_copy(update=changed)


def _sum_of_known(numbers: Sequence[int | None]) -> int | None:
    """None where one of them is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _answers(inputs: Sequence[VerifiedInput]) -> AnswerFacts | None:
    """The answers of all inputs; None where those of one are not known, or it has texts."""
    known = [each.facts.answers for each in inputs if each.facts.answers is not None]
    if len(known) < len(inputs):
        return None
    return AnswerFacts(answers=sum(each.answers for each in known), tokens=sum(each.tokens for each in known))


def _facts(inputs: Sequence[VerifiedInput], writer: StretchWriter, settings: SettingsFacts | None) -> DatasetFacts:
    not_read = [name for each in inputs for name in each.facts.not_read]
    return DatasetFacts(
        documents=writer.documents,
        sequences=writer.sequences,
        tokens=writer.tokens,
        dtype=writer.dtype.name,
        largest_token_id=writer.largest_token,
        empty_documents=sum(each.facts.empty_documents for each in inputs),
        tokenizer=inputs[0].facts.tokenizer,
        settings=settings,
        sources=_joined(inputs)[:SOURCES_NAMED],
        number_not_read=sum(each.facts.number_not_read for each in inputs),
        not_read=not_read[:NOT_READ_NAMED],
        answers=_answers(inputs),
        injection=joined_facts([each.facts.injection for each in inputs]),
    )


def _joined(inputs: Sequence[VerifiedInput]) -> list[SourceFacts]:
    """The sources in their order; one that was cut in two by shards is one again."""
    joined: list[SourceFacts] = []
    for source in (source for each in inputs for source in each.facts.sources):
        last = joined[-1] if joined else None
        if last is not None and (last.name, last.size, last.sha256) == (source.name, source.size, source.sha256):
            joined[-1] = last.model_copy(update={"documents": last.documents + source.documents})
        else:
            joined.append(source)
    return joined


def _command(output: Path, inputs: Sequence[Path]) -> str:
    """The command line with names in place of this machine's paths; the parents name every input."""
    named = [each.name for each in inputs[:INPUTS_IN_COMMAND]]
    more = ["..."] if len(inputs) > INPUTS_IN_COMMAND else []
    return storable(shlex.join(["tools/dataset", "merge", output.name, *named, *more]))
