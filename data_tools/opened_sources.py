"""The datasets of a run's sources, opened once each, and the samples that are cut from them."""

import fnmatch
import glob
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.data_config import DataConfig
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, read_dataset_manifest
from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.plans.planned_samples import PlannedSamples
from data_tools.plans.plans import PlanRequest, make_plan, open_plan
from data_tools.plans.samples_config import StreamConfig
from data_tools.plans.wrapping import Wrapping
from data_tools.samples.concatenation import Concatenation
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.windows import TokenWindows
from data_tools.source_parts import SourcePart
from data_tools.sources_config import SourceConfig
from data_tools.splits.document_hashes import make_hashes, open_hashes
from data_tools.splits.shards import choose_shards, parse_shards
from data_tools.splits.shares import Part as PartName
from data_tools.splits.shares import parse_range, select
from megatron_patches.artefacts.manifest import verify_files
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.files import is_file, names_in
from megatron_patches.foreign.mapped import expect_random_reads
from megatron_patches.foreign.printable import printable

SHORT_SAMPLE = 1 << 14
"""bytes; of longer ones the system reads more at a time than they have pages"""
OnPreparation = Callable[[str, int, int], None]
"""is told what is made, how many documents are done, and of how many"""


Folders = dict[str, list[str]]
"""names of the indices (`.idx`) in each folder"""
_INDEX = ".idx"


def in_silence(what: str, done: int, of: int) -> None:
    """For callers that tell nobody what is made."""


@dataclass(frozen=True)
class Shard:
    """One dataset, opened."""

    prefix: Path
    id: str
    facts: DatasetFacts
    dataset: IndexedDataset

    @property
    def has_answers(self) -> bool:
        """Whether its documents are pairs or chats."""
        return self.facts.settings is not None and self.facts.settings.records != "text"


class Shards:
    """Datasets by their prefix; each is opened once, whatever sources read it."""

    def __init__(self, allow_invalid: bool) -> None:
        self._allow_invalid = allow_invalid
        self._opened: dict[Path, Shard] = {}

    def open(self, prefix: Path) -> Shard:
        """Raises TrainyardError where it is missing, damaged, or marked invalid."""
        if prefix not in self._opened:
            try:
                dataset = IndexedDataset(prefix)
            except OSError as error:
                raise Refused(
                    f"dataset {printable(prefix)} cannot be read ({error.strerror}); give this user the right to, or "
                    "copy it"
                ) from None
            manifest, facts = read_dataset_manifest(prefix, self._allow_invalid)
            if problems := verify_files(manifest, prefix.parent, hashes=False):
                raise TrainyardError(f"{'; '.join(problems)}. Copy the dataset again, or run tools/preprocess again")
            self._opened[prefix] = Shard(prefix, manifest.id, facts, dataset)
        return self._opened[prefix]

    def all(self) -> Sequence[Shard]:
        """Those that were opened."""
        return list(self._opened.values())


def all_prefixes(config: DataConfig, checkout: Path) -> list[Path]:
    """Every dataset that a run names, for training or validation, each once."""
    sources = [*config.all_sources, *(source for group in config.validation for source in group.sources)]
    datasets = [source for source in sources if source.path is not None]
    return list(dict.fromkeys(prefix for source in datasets for prefix in prefixes_of(source, checkout)))


def prefixes_of(source: SourceConfig, checkout: Path, folders: Folders | None = None) -> list[Path]:
    """The datasets that a source reads, sorted by name.

    Args:
        folders: what was found in folders before, and is added to: a folder of many sources is gone through once.

    Raises:
        Missing: there are none.
    """
    assert source.path is not None, "raw text has no datasets"
    pattern = str(checkout / source.path)
    if is_file(Path(f"{pattern}.idx")) or not glob.has_magic(pattern):
        found = [pattern]
    else:
        found = sorted(path.removesuffix(_INDEX) for path in _fitting(f"{pattern}{_INDEX}", folders))
        if not found:
            raise Missing(
                f"source {source.name}: no dataset fits {printable(pattern)} (looked for .idx files); correct its path"
            )
    try:
        return [Path(each) for each in choose_shards(found, parse_shards(source.shards))]
    except TrainyardError as error:
        raise Missing(f"source {source.name}, {printable(pattern)}: {error}") from None


def _fitting(pattern: str, folders: Folders | None) -> list[str]:
    """Files that fit an absolute pattern, as `glob.glob` finds them."""
    folder, name = os.path.split(pattern)
    if folders is None or glob.has_magic(folder):
        return glob.glob(pattern)  # noqa: PTH207  absolute
    if folder not in folders:
        folders[folder] = [each for each in names_in(Path(folder)) if each.endswith(_INDEX)]
    hidden = name.startswith(".")
    return [f"{folder}/{each}" for each in fnmatch.filter(folders[folder], name) if hidden or not each.startswith(".")]


class OpenedSource:
    """One source of a run: its datasets, and the samples of each part of its documents.

    Args:
        prepare: told of what is made first, where it is not there yet: hashes of documents, plans of samples. None
            makes nothing: what is missing is an error.
        wrapping: the tokens around each text, where samples are wrapped.
    """

    def __init__(
        self,
        source: SourceConfig,
        shards: Sequence[Shard],
        config: DataConfig,
        lengths: SampleLengths,
        tokenizer: Path,
        prepare: OnPreparation | None,
        wrapping: Wrapping | None = None,
    ) -> None:
        self.name = source.name
        self._wrapping = wrapping
        self.source = source
        self.shards = shards
        self._config = config
        self._lengths = lengths
        self._tokenizer = tokenizer
        self._prepare = prepare

    def at(self, lengths: SampleLengths) -> "OpenedSource":
        """The same source, its samples of these lengths."""
        if lengths == self._lengths:
            return self
        return OpenedSource(
            self.source, self.shards, self._config, lengths, self._tokenizer, self._prepare, self._wrapping
        )

    @property
    def dataset_ids(self) -> list[str]:
        """Ids of its datasets, in the order in which they are read."""
        return [shard.id for shard in self.shards]

    def find(self, number: int) -> tuple[Shard, list[tuple[int, int]]]:
        """The dataset of a training sample, and the stretches of its tokens, [first, end), that it is made of.

        Raises:
            IndexError: there is no such sample.
            Damaged: its plan names tokens that the dataset does not have.
        """
        pieces = self.training.pieces
        piece, inside = Concatenation(pieces).find(number)
        return self.shards[piece], pieces[piece].stretches(inside)

    @property
    def identity(self) -> dict[str, Any]:
        """Which documents it reads: a hash of the datasets' ids in their order, how many they are, and the range; and
        the order of samples where it is not the usual one, which earlier versions did not have."""
        datasets = hashlib.sha256(" ".join(self.dataset_ids).encode()).hexdigest()
        order = {"order": self.source.order} if self.source.order != "shuffled" else {}
        return {"count": len(self.shards), "datasets": datasets, "range": list(parse_range(self.source.range)), **order}

    @cached_property
    def training(self) -> SourcePart:
        """What is trained on."""
        return self._part("training", self._config.split)

    @cached_property
    def validation(self) -> SourcePart:
        """What `split` leaves for validation."""
        return self._part("validation", self._config.split)

    @cached_property
    def whole(self) -> SourcePart:
        """All of its range."""
        return self._part("training", "1")

    def hashes(self, shard: Shard) -> NDArray[np.uint64]:
        """Of all documents of one of its datasets, uint64 [documents].

        Raises:
            Missing: they are not there, and nothing is to be made.
        """
        documents = shard.dataset.number_of_documents
        # again where another process was just replacing those of an earlier dataset
        while (found := open_hashes(shard.prefix, shard.id, documents)) is None:
            prepare = self._prepare
            if prepare is None:
                raise Missing(
                    f"the hashes of {printable(shard.prefix)} are not there, though the launch made or found them; "
                    "start the launch again, or run tools/dataset hash"
                )
            tell = partial(prepare, f"hashes of the documents of {shard.prefix.name}")
            make_hashes(shard.prefix, shard.dataset, shard.id, lambda at, tell=tell: tell(*at))  # type: ignore[misc]
        return found

    def _part(self, part: PartName, split: str) -> SourcePart:
        documents = [shard.dataset.number_of_documents for shard in self.shards]
        shares, by = parse_range(self.source.range), self._config.split_by
        selections = select(part, split, shares, by, documents, lambda number: self.hashes(self.shards[number]))
        pairs = zip(self.shards, selections, strict=True)
        return SourcePart(selections, [self._cut(shard, selection) for shard, selection in pairs])

    def _cut(self, shard: Shard, selection: Selection) -> TokenWindows | PlannedSamples:
        samples = self._config.samples
        if self._prepare is None and self._lengths.read * shard.dataset.dtype.itemsize <= SHORT_SAMPLE:
            expect_random_reads(shard.dataset.tokens)  # who makes plans and hashes reads from end to end
        if isinstance(samples, StreamConfig) and isinstance(selection, DocumentRange):
            return TokenWindows(shard.dataset, (selection.first, selection.end), self._lengths)
        request = PlanRequest(
            shard.prefix, shard.id, selection, samples, self._lengths, self._tokenizer, self._wrapping
        )
        answers = shard.dataset.answers if shard.has_answers and self._config.answers_only else None
        planned = open_plan(request, shard.dataset, answers)
        if planned is not None:
            return planned
        if self._prepare is None:
            raise Missing(
                f"the plan of samples of {printable(shard.prefix)} is not there, though the launch made or found it; "
                "start the launch again"
            )
        tell, what = self._prepare, f"plan of {samples.name} over {shard.prefix.name}"
        return make_plan(request, shard.dataset, lambda done, of: tell(what, done, of), answers)
