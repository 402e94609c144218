"""Finished files become datasets: their facts, their manifests, their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import JsonValue

from data_tools.datasets.indexed_dataset_format import appended, bin_path, idx_path
from data_tools.datasets.indexed_dataset_writer import publish_files
from data_tools.datasets.manifest import (
    AnswerFacts,
    DatasetFacts,
    SettingsFacts,
    SourceFacts,
    describe_tokenizer,
    manifest_path,
)
from data_tools.datasets.preprocessing.inputs import Inputs
from data_tools.datasets.preprocessing.notes import DatasetNote, ReadingNote
from data_tools.datasets.preprocessing.outputs import DOCUMENT, DOCUMENTS
from data_tools.domain_tokens.report import InjectionFacts
from data_tools.reading.files.sources import NOT_READ_NAMED
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import FileRecord, Manifest, build_manifest, content_id, write_manifest
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted

DOCUMENTS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class DatasetSummary:
    """One finished dataset."""

    prefix: Path
    id: str
    facts: DatasetFacts


class Made(NamedTuple):
    """The finished files of one dataset."""

    key: int
    shard: int | None
    """None: it is in one piece"""
    prefix: Path
    unfinished: Path
    note: DatasetNote


class Publishing:
    """What all datasets of one reading share."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: Mapping[str, SettingsFacts],
        inputs: Inputs,
        reading: ReadingNote,
        dtype: np.dtype[Any],
        command: str,
    ) -> None:
        self._tokenizer = tokenizer
        self._settings = list(settings.items())
        self._inputs = inputs
        self._reading = reading
        self._dtype = dtype
        self._command = command

    def facts(self, made: Made) -> DatasetFacts:
        """The facts of a dataset.

        Raises:
            TrainyardError: it would hold no text.
        """
        key, setting = self._settings[made.key]
        note = made.note
        if note.empty_documents == note.documents or note.largest_token is None:
            shard = "" if made.shard is None else f" for shard {made.shard}"
            option = "json-keys" if setting.records == "text" else setting.records
            empty = ", all of them empty" if note.documents else ""
            raise TrainyardError(
                f"the sources hold no text under {key!r}{shard}: {counted(note.documents, 'document')}{empty}; check "
                f"the inputs and --{option}"
            )
        answers = AnswerFacts(answers=note.answers, tokens=note.answer_tokens)
        not_read = self._inputs.not_read
        return DatasetFacts(
            documents=note.documents,
            sequences=note.sequences,
            tokens=note.tokens,
            dtype=self._dtype.name,
            largest_token_id=note.largest_token,
            empty_documents=note.empty_documents,
            tokenizer=describe_tokenizer(self._tokenizer),
            settings=_of_shard(setting, made.shard),
            sources=self._sources(made),
            number_not_read=len(not_read),
            not_read=[each.name for each in not_read[:NOT_READ_NAMED]],
            answers=answers if setting.records != "text" else None,
            injection=self._injected(made, setting),
            left_out=self._reading.bad,
            shortened_documents=self._reading.shortened[made.key],
            collections=self._inputs.collections,
        )

    def _sources(self, made: Made) -> list[SourceFacts]:
        """The sources of a dataset; of a shard, those that it has documents of."""
        sources = self._reading.sources
        if made.shard is None:
            return list(sources)
        counts = np.zeros(len(sources), dtype=np.int64)
        for first in range(0, made.note.documents, DOCUMENTS_AT_ONCE):
            of_documents = np.fromfile(
                appended(made.unfinished, DOCUMENTS),
                DOCUMENT,
                min(DOCUMENTS_AT_ONCE, made.note.documents - first),
                offset=first * DOCUMENT.itemsize,
            )["source"]
            counts += np.bincount(of_documents[of_documents >= 0], minlength=len(sources))
        return [
            source.model_copy(update={"documents": int(count)})
            for source, count in zip(sources, counts, strict=True)
            if count
        ]

    def _injected(self, made: Made, setting: SettingsFacts) -> InjectionFacts | None:
        if setting.inject is None or made.shard is not None:
            return None
        counts = self._reading.injection[made.key].counts()
        path = appended(made.unfinished, DOCUMENTS)
        return counts.facts(setting.inject, np.memmap(path, DOCUMENT, mode="r", shape=made.note.documents)["injected"])

    def publish(self, each: Sequence[Made], facts: Sequence[DatasetFacts]) -> list[DatasetSummary]:
        """Gives all datasets their names; called again after a kill it does what is left to do.

        Old manifests go first: data without a manifest is refused, data under another one's goes unnoticed.
        """
        for made in each:
            manifest_path(made.prefix).unlink(missing_ok=True)
        first: Manifest | None = None
        summaries = []
        for made, stated in zip(each, facts, strict=True):
            publish_files(appended(made.unfinished, ".bin"), appended(made.unfinished, ".idx"), made.prefix)
            paths = (bin_path(made.prefix), idx_path(made.prefix))
            files = [
                FileRecord(path=path.name, size=file.size, sha256=file.sha256)
                for path, file in zip(paths, made.note.files, strict=True)
            ]
            first = first or self._manifest(files, stated)
            manifest = _like(first, files, stated)
            write_manifest(manifest_path(made.prefix), manifest)
            summaries.append(DatasetSummary(made.prefix, manifest.id, stated))
        return summaries

    def _manifest(self, files: list[FileRecord], facts: DatasetFacts) -> Manifest:
        parents, proof = [self._tokenizer.id], self._proof()
        return build_manifest("dataset", files, facts.model_dump(mode="json"), parents, self._command, proof)

    def _proof(self) -> dict[str, JsonValue] | None:
        """What showed that ids are the tokenizer's own, with names of sources in place of this machine's paths."""
        proof = self._reading.proof
        if proof is None:
            return None
        names = {part.origin: part.name for part in self._inputs.parts}
        of_parts = [names.get(origin, origin) for origin in self._reading.by_reference]
        earlier: list[JsonValue] = [dict(each) for each in self._reading.earlier_proofs]
        return {**proof, "by_reference": list[JsonValue](of_parts), **({"before": earlier} if earlier else {})}


def _of_shard(setting: SettingsFacts, shard: int | None) -> SettingsFacts:
    """The settings; of a shard, with its number and without what is true of all together alone."""
    if shard is None:
        return setting
    made_up = 0 if setting.synthetic_documents == 0 else None
    return setting.model_copy(update={"shard": shard, "synthetic_documents": made_up})


def _like(manifest: Manifest, files: list[FileRecord], facts: DatasetFacts) -> Manifest:
    """The manifest of another dataset of the same reading; git, which takes longer, is asked once for all."""
    stated = facts.model_dump(mode="json")
    identity = content_id(manifest.kind, manifest.parents, files, stated)
    return manifest.model_copy(update={"id": identity, "files": files, "facts": stated})
