"""The datasets of a run's sources, opened once each, and the samples that are cut from them."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_tools.data_config import DataConfig
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import DatasetFacts, read_dataset_manifest
from data_tools.datasets.split import split_documents
from data_tools.samples.concatenation import Concatenation
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.source import SampleSource
from data_tools.samples.windows import TokenWindows
from data_tools.sources_config import SourceConfig, parse_range, parse_shards
from megatron_patches.artefacts.manifest import verify_files
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import printable


@dataclass(frozen=True)
class Shard:
    """One dataset, opened."""

    prefix: Path
    id: str
    facts: DatasetFacts
    dataset: IndexedDataset


class Shards:
    """Datasets by their prefix; each is opened once, whatever sources read it."""

    def __init__(self, allow_invalid: bool) -> None:
        self._allow_invalid = allow_invalid
        self._opened: dict[Path, Shard] = {}

    def open(self, prefix: Path) -> Shard:
        """Raises TrainyardError where it is missing, damaged, or marked invalid."""
        if prefix not in self._opened:
            dataset = IndexedDataset(prefix)
            manifest, facts = read_dataset_manifest(prefix, self._allow_invalid)
            if problems := verify_files(manifest, prefix.parent, hashes=False):
                raise TrainyardError(f"{'; '.join(problems)}. Copy the dataset again, or run tools/preprocess again")
            self._opened[prefix] = Shard(prefix, manifest.id, facts, dataset)
        return self._opened[prefix]

    def all(self) -> Sequence[Shard]:
        """Those that were opened."""
        return list(self._opened.values())


def all_prefixes(config: DataConfig, checkout: Path) -> list[Path]:
    """Every dataset that a run reads, for training or validation, each once."""
    sources = [*config.all_sources, *(source for group in config.validation for source in group.sources)]
    return list(dict.fromkeys(prefix for source in sources for prefix in prefixes_of(source, checkout)))


def prefixes_of(source: SourceConfig, checkout: Path) -> list[Path]:
    """The datasets that a source reads, sorted by name.

    Raises:
        Missing: there are none.
    """
    pattern = str(checkout / source.path)
    if Path(f"{pattern}.idx").is_file() or not glob.has_magic(pattern):
        found = [pattern]
    else:
        found = sorted(path.removesuffix(".idx") for path in glob.glob(f"{pattern}.idx"))  # noqa: PTH207  absolute
        if not found:
            raise Missing(
                f"source {source.name}: no dataset fits {printable(pattern)} (looked for .idx files); correct its path"
            )
    chosen = found[parse_shards(source.shards)]
    if not chosen:
        raise Missing(
            f"source {source.name}: {printable(pattern)} fits {len(found)} of which shards {source.shards} leaves "
            "none; correct shards"
        )
    return [Path(each) for each in chosen]


class OpenedSource:
    """One source of a run: its datasets, and the samples of each part of its documents."""

    def __init__(
        self, source: SourceConfig, shards: Sequence[Shard], config: DataConfig, lengths: SampleLengths
    ) -> None:
        self.name = source.name
        self.source = source
        self.shards = shards
        self._config = config
        self._lengths = lengths

    @property
    def dataset_ids(self) -> list[str]:
        """Ids of its datasets, in the order in which they are read."""
        return [shard.id for shard in self.shards]

    @cached_property
    def training(self) -> "Part":
        """What is trained on."""
        return self._part(0, self._config.split)

    def find(self, number: int) -> tuple[Shard, list[tuple[int, int]]]:
        """The dataset of a training sample, and the stretches of its tokens, [first, end), that it is made of.

        Raises:
            IndexError: there is no such sample.
        """
        pieces = self.training.pieces
        piece, inside = Concatenation(pieces).find(number)
        return self.shards[piece], pieces[piece].stretches(inside)

    @cached_property
    def validation(self) -> "Part":
        """What `split` leaves for validation."""
        return self._part(1, self._config.split)

    @cached_property
    def whole(self) -> "Part":
        """All of its range."""
        return self._part(0, "1")

    def _part(self, part: int, split: str) -> "Part":
        selections = _file_order(
            part, split, parse_range(self.source.range), [s.dataset.number_of_documents for s in self.shards]
        )
        pairs = zip(self.shards, selections, strict=True)
        sources = [TokenWindows(shard.dataset, documents, self._lengths) for shard, documents in pairs]
        return Part(sources, sum(last - first for first, last in selections))


def _file_order(part: int, split: str, range_: tuple[float, float], documents: Sequence[int]) -> list[tuple[int, int]]:
    total = sum(documents)
    low, high = round(range_[0] * total), round(range_[1] * total)
    first, last = split_documents(split, high - low)[part]
    first, last, before, found = first + low, last + low, 0, []
    for count in documents:
        found.append((min(max(first - before, 0), count), min(max(last - before, 0), count)))
        before += count
    return found


@dataclass(frozen=True)
class Part:
    """Some of a source's documents, cut into samples."""

    pieces: Sequence[TokenWindows]
    """of each dataset"""
    documents: int

    @cached_property
    def samples(self) -> SampleSource:
        """The samples of all pieces, one piece after the other."""
        return self.pieces[0] if len(self.pieces) == 1 else Concatenation(self.pieces)

    @property
    def tokens(self) -> int:
        """Tokens of its documents."""
        return sum(piece.tokens for piece in self.pieces)
