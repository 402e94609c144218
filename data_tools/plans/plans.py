"""Plans of samples: made once from a dataset, found beside it by every launch and every rank from then on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from data_tools.datasets.derived import place_to_write, places, written_whole
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import manifest_path
from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.plans.characters import CharacterCounts, CharacterTable
from data_tools.plans.facts import PlanFacts
from data_tools.plans.filters import Filters
from data_tools.plans.making import Maker, OnProgress, PackMaker, StreamMaker, WindowMaker
from data_tools.plans.plan_file import VERSION, PlanKind, PlanWriter, make_again, map_plan
from data_tools.plans.planned_samples import PlannedSamples, PlannedSegments, SelectedStream
from data_tools.plans.samples_config import FilteredSection, PacksConfig, SamplesSection, StreamConfig, WindowsConfig
from data_tools.plans.segmenting import Answers, segmenter_of
from data_tools.plans.wrapping import Wrapping
from data_tools.samples.lengths import SampleLengths
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.artefacts.manifest import (
    Manifest,
    build_manifest,
    read_manifest,
    refuse_invalid,
    verify_files,
    write_manifest,
)
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError, refuse
from megatron_patches.foreign.files import is_file, is_folder
from megatron_patches.foreign.printable import printable


@dataclass(frozen=True)
class PlanRequest:
    """Which samples are wanted of which documents.

    A stream of a range of documents needs no plan (`TokenWindows`); of any other selection it does.
    """

    prefix: Path
    """of the dataset"""
    dataset_id: str
    documents: Selection
    samples: SamplesSection
    lengths: SampleLengths
    tokenizer: Path | None
    """folder or `.model` of the tokenizer that the dataset was made with; filters of characters need it"""
    wrapping: Wrapping | None = None
    """tokens around each text, where samples are wrapped; the plan only leaves room for them"""


def open_plan(request: PlanRequest, dataset: IndexedDataset, answers: Answers | None = None) -> PlannedSamples | None:
    """The samples of a plan that was made before; None where there is none yet. A constant cost for any size.

    Args:
        answers: which tokens are to be predicted, where a dataset says so; `make_plan` is given the same.

    Raises:
        Damaged: there is one that was changed, or cut off.
        Refused: it belongs to another dataset, or is of another version.
        TrainyardError: what is asked for has no sense.
    """
    identity = _Identity(request, answers is not None)
    candidates = places(request.prefix, request.dataset_id, identity.ending)
    path = next((place for place in candidates if is_file(manifest_path(place))), None)
    return None if path is None else _open(path, identity, dataset, answers)


def make_plan(
    request: PlanRequest, dataset: IndexedDataset, on_progress: OnProgress, answers: Answers | None = None
) -> PlannedSamples:
    """Makes a plan, in place of one that there may be, and opens it.

    Processes that make or read one at the same time do not disturb each other: all write the same bytes.

    Args:
        on_progress: is told after each block of documents how many are passed, of how many.
        answers: see `open_plan`. Segments in which none of them is to be predicted are left out.

    Raises:
        Damaged: the dataset is.
        TrainyardError: what is asked for has no sense, a tokenizer is needed and cannot be had, no folder may be
            written to, or the disk is full; nothing is left behind.
    """
    identity = _Identity(request, answers is not None)
    path = place_to_write(request.prefix, request.dataset_id, identity.ending)
    refuse(
        f"{printable(place)} is a folder, where a file of a plan goes; move it away"
        for place in (path, manifest_path(path))
        if is_folder(place)
    )
    with written_whole(path), PlanWriter(path, identity.kind, request.lengths.read) as writer:
        maker = _maker(request, dataset, writer, answers)
        maker.make(request.documents, dataset, on_progress)
        facts = PlanFacts(
            version=VERSION,
            key=identity.key,
            plan=identity.kind,
            settings=identity.settings,
            selection=request.documents.name,
            read=request.lengths.read,
            **maker.counts(),
        )
        file = writer.publish(facts.segments, facts.samples)
        write_manifest(manifest_path(path), build_manifest("plan", [file], facts.model_dump(), identity.parents))
    return _open(path, identity, dataset, answers)


class _Identity:
    """What decides a plan, and so its name.

    Raises:
        TrainyardError: what is asked for has no sense.
    """

    def __init__(self, request: PlanRequest, has_answers: bool) -> None:
        read = request.lengths.read
        refuse(request.samples.problems(read))
        wrapped = isinstance(request.samples, FilteredSection) and request.samples.wrapped
        assert wrapped == (request.wrapping is not None), "the tokens around texts are given where texts are wrapped"
        self.wrapping = request.wrapping
        self.kind: PlanKind
        self.settings = request.samples.decides(read)
        self.stride = request.lengths.stride
        if isinstance(request.samples, StreamConfig):
            assert not isinstance(request.documents, DocumentRange), "a stream of a range of documents needs no plan"
            self.kind, self.settings = "stream", {"stride": self.stride}
        elif isinstance(request.samples, WindowsConfig):
            self.kind = "windows"
        else:
            assert isinstance(request.samples, PacksConfig), f"{request.samples.name} samples have no plans"
            self.kind = "packs"
        self.parents = [request.dataset_id]
        if _read_characters(request.samples):
            self.parents.append(tokenizer_id(find_tokenizer(_tokenizer_of(request)), allow_invalid=True))
        content = {
            "version": VERSION,
            "parents": self.parents,
            "selection": request.documents.name,
            "samples": self.kind,
            "settings": self.settings,
            "read": read,
            "answers": has_answers,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        self.key = hashlib.sha256(canonical.encode()).hexdigest()
        self.ending = f"{self.kind}-{self.key[:12]}.plan"


def _read_characters(samples: SamplesSection) -> bool:
    return isinstance(samples, FilteredSection) and samples.filters.read_characters


def _tokenizer_of(request: PlanRequest) -> Path:
    if request.tokenizer is None:
        raise TrainyardError(
            f"data.samples.filters of characters need the tokenizer that dataset {printable(request.prefix)} was made "
            "with; name its folder, or leave these filters out"
        )
    return request.tokenizer


def _maker(request: PlanRequest, dataset: IndexedDataset, writer: PlanWriter, answers: Answers | None) -> Maker:
    section, read = request.samples, request.lengths.read
    if isinstance(section, FilteredSection):
        characters = None
        if section.filters.read_characters:
            table = CharacterTable(_tokenizer_of(request))
            characters = CharacterCounts(table, dataset.tokens, dataset.bin_path)
        segmenter = segmenter_of(section, read, Filters(section.filters, characters), answers)
        if isinstance(section, PacksConfig):
            return PackMaker(section, read, writer, segmenter)
        return WindowMaker(read, writer, segmenter)
    return StreamMaker(request.lengths, writer)


def _open(path: Path, identity: _Identity, dataset: IndexedDataset, answers: Answers | None) -> PlannedSamples:
    manifest, facts = _read_facts(path, identity)
    if problems := verify_files(manifest, path.parent, hashes=False):
        raise Damaged(f"{'; '.join(map(printable, problems))}; {make_again(path)}")
    try:
        header, arrays = map_plan(path)
    except Missing as error:
        raise Damaged(f"{error}, though its manifest is there; {make_again(manifest_path(path))}") from None
    if (*header,) != (facts.plan, facts.read, facts.segments, facts.samples):
        raise Damaged(f"{printable(path)} is not the plan that its manifest describes; {make_again(path)}")
    if facts.plan == "stream":
        return SelectedStream(path, facts, dataset, arrays, identity.stride)
    return PlannedSegments(path, facts, dataset, arrays, answers, identity.wrapping)


def _read_facts(path: Path, identity: _Identity) -> tuple[Manifest, PlanFacts]:
    """What the manifest says, where it is that of the plan that is asked for."""
    where = manifest_path(path)
    try:
        manifest = read_manifest(where)
    except (Damaged, Refused) as error:
        raise type(error)(f"{error} ({make_again(where)})") from None
    if manifest.status.cause == manifest.id:
        # what is invalid for its dataset's sake may be used where the dataset may, which whoever opened that decided
        refuse_invalid(manifest, where, make_again(where))
    if manifest.kind != "plan" or manifest.parents != identity.parents:
        of = f"a {manifest.kind}" if manifest.kind != "plan" else "a plan of another dataset or tokenizer"
        raise Refused(f"{printable(where)} is the manifest of {of}; {make_again(where)}")
    version = manifest.facts.get("version")
    if version != VERSION:
        raise Refused(
            f"{printable(where)} belongs to a plan of version {printable(version)}, this Trainyard reads version "
            f"{VERSION}; {make_again(where)}"
        )
    try:
        facts = PlanFacts.model_validate(manifest.facts)
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise Damaged(f"{printable(where)} lacks or misstates the facts {missing}; {make_again(where)}") from None
    if facts.key != identity.key or [file.path for file in manifest.files] != [path.name]:
        raise Damaged(f"{printable(where)} is the manifest of another plan; {make_again(where)}")
    return manifest, facts
