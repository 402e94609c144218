"""The `data:` section of a run."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from data_tools.datasets.split import parse_split
from data_tools.loader_config import LoaderConfig
from data_tools.plans.samples_config import SAMPLES, FilteredSection, SamplesSection, StreamConfig
from data_tools.samples.blend import whole_weights
from data_tools.samples.skipping import ranges_of
from data_tools.sources_config import SourceConfig, ValidationGroupConfig, check_names
from data_tools.streams.text_config import TextConfig
from megatron_patches.artefacts.chosen import UNNAMED_GROUP
from megatron_patches.configuration.section import PathText, Section, path_field

ONLY_SOURCE = "data"
"""name of the source that `data.path` stands for"""
ONLY_GROUP = UNNAMED_GROUP
"""name of the group that validates the run's own sources, where `data.validation` names none"""
_USUAL_SPLIT = "949,50,1"
_ALL_FOR_TRAINING = "100"


class SourceChangeConfig(Section):
    """Other sources from a step on."""

    from_step: int = Field(gt=0, description="the sources hold for the samples that are read after this step")
    sources: list[SourceConfig] = Field(
        min_length=1,
        description="all sources from there on; one whose name was there before goes on where it was, one with a new "
        "name begins with its first sample",
    )

    @model_validator(mode="after")
    def _sources_fit(self) -> "SourceChangeConfig":
        check_names("source", (each.name for each in self.sources))
        whole_weights([each.weight for each in self.sources])
        return self


class DataConfig(Section):
    """Which tokens a run reads and how they are cut into samples."""

    short_paths = ("text",)

    path: PathText | None = path_field(
        "prefix of the dataset: PATH.bin, PATH.idx and PATH.manifest.json; the same as one source named data", None
    )
    text: TextConfig | None = Field(
        None,
        description="raw text in place of path, tokenized while the run trains: data/raw/*.jsonl, or {path: hf:NAME, "
        "key: content}; the same as one source named data",
    )
    sources: list[SourceConfig] = Field(
        [],
        description="datasets that are read in proportion to their weights, in place of path: [{name: en, weight: 0.7, "
        "path: data/en}, {name: code, weight: 0.3, path: 'data/code-*'}]",
    )
    changes: list[SourceChangeConfig] = Field(
        [],
        description="other sources from a step on, in ascending order: [{from_step: 5000, sources: [...]}]; a run that "
        "has begun can only change what lies ahead",
    )
    validation: list[ValidationGroupConfig] = Field(
        [],
        description="groups of sources to validate on, each with a loss of its own: [{name: en, path: data/en, range: "
        "'0.95:1'}]; without any, the validation share of split is the one group, named validation",
    )
    tokenizer: PathText = path_field("folder of the tokenizer that the datasets were made with")
    split: str = Field(
        _USUAL_SPLIT,
        description="shares of each source's documents for training, validation and test; 100 is all for training, "
        "which is also what it is where validation names groups",
    )
    split_by: Literal["file_order", "document_hash"] = Field(
        "file_order",
        description="what split and ranges cut: documents as they lie in the files, or by a hash of their tokens, "
        "which mixes ordered files and keeps documents that are the same on one side",
    )
    samples: Annotated[SamplesSection, SAMPLES] = Field(
        StreamConfig(name="stream"),
        description="how documents become samples: a stream that is cut at equal distances, windows within documents, "
        "or packs of whole ones; {name: windows, overlap: 0.5}",
    )
    sequence_length: int = Field(gt=0, description="tokens the model sees in one sample")
    max_epochs: float = Field(
        1.0, gt=0, description="most readings of a source's tokens the run may plan, in epochs; more is refused"
    )
    skip_samples: list[list[int]] = Field(
        [],
        description="samples that are left out, as [FROM, TO) places in the run's order of samples, from 0, in "
        "ascending order: [[8000, 9600]]; a run that has begun can only change what lies ahead (tools/runs rollback)",
    )
    loader: LoaderConfig = Field(LoaderConfig(), description="how samples are read beside training")
    allow_invalid: bool = Field(
        False, description="train although dataset or tokenizer, and so the run's checkpoints, are marked invalid"
    )

    @property
    def first_sources(self) -> list[SourceConfig]:
        """The sources that a run begins with; `path` or `text` is one of them."""
        if self.path is None and self.text is None:
            return self.sources
        return [SourceConfig(name=ONLY_SOURCE, path=self.path, text=self.text)]

    @property
    def all_sources(self) -> list[SourceConfig]:
        """Every source that is read for training at any time, once, in the order in which it comes."""
        found: dict[str, SourceConfig] = {}
        for source in (*self.first_sources, *(each for change in self.changes for each in change.sources)):
            before = found.setdefault(source.name, source)
            if before.max_epochs is None and source.max_epochs is not None:  # it may stand at any of them
                found[source.name] = source
        return list(found.values())

    @property
    def answers_only(self) -> bool:
        """Whether of pairs and chats the answers alone are to be predicted."""
        return isinstance(self.samples, FilteredSection) and self.samples.answers_only

    @property
    def group_names(self) -> tuple[str, ...]:
        """What a run may be validated on, by name."""
        return tuple(group.name for group in self.validation) or (ONLY_GROUP,)

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate on; of raw text there is what is held out of it."""
        held_out = any(each.text is not None for each in self.first_sources)
        return bool(self.validation) or held_out or parse_split(self.split)[1] > 0

    @model_validator(mode="before")
    @classmethod
    def _groups_leave_all_for_training(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("validation") and values.get("split") is None:
            return {**values, "split": _ALL_FOR_TRAINING}
        return values

    @field_validator("split", mode="before")
    @classmethod
    def _split_of_numbers(cls, value: Any) -> Any:
        """YAML takes `100` for a number and `[949, 50, 1]` for a list, on the command line too."""
        given = value if isinstance(value, list) else [value]
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in given)
        return ",".join(map(str, given)) if numbers else value

    @field_validator("skip_samples")
    @classmethod
    def _ranges_are_in_order(cls, ranges: list[list[int]]) -> list[list[int]]:
        ranges_of(ranges)
        return ranges

    @field_validator("sources")
    @classmethod
    def _weights_make_a_blend(cls, sources: list[SourceConfig]) -> list[SourceConfig]:
        check_names("source", (each.name for each in sources))
        if sources:
            whole_weights([each.weight for each in sources])
        return sources

    @field_validator("validation")
    @classmethod
    def _groups_have_names(cls, groups: list[ValidationGroupConfig]) -> list[ValidationGroupConfig]:
        check_names("validation group", (each.name for each in groups))
        return groups

    @model_validator(mode="after")
    def _makes_sense(self) -> "DataConfig":
        values = {"path": self.path, "text": self.text, "sources": self.sources or None}
        given = [key for key, value in values.items() if value is not None]
        if not given:
            raise ValueError(
                "neither path nor sources is given; give path for one dataset, text for raw text, or sources for a "
                "blend"
            )
        if len(given) > 1:
            raise ValueError(
                f"both {' and '.join(given)} are given; keep path for one dataset, text for raw text, or sources for a "
                "blend. Where a base run has another one, write path: null, text: null, or sources: []"
            )
        if self.validation and parse_split(self.split)[1] > 0:
            raise ValueError(
                f"split {self.split} leaves documents for validation, which validation groups do not read; set split "
                "to 100, or remove validation"
            )
        parse_split(self.split)
        self._check_changes()
        return self

    def _check_changes(self) -> None:
        steps = [change.from_step for change in self.changes]
        if sorted(set(steps)) != steps:
            raise ValueError(f"changes are at steps {', '.join(map(str, steps))}; put them in order, each step once")
        known: dict[str, SourceConfig] = {}
        for source in (*self.first_sources, *(each for change in self.changes for each in change.sources)):
            before = known.setdefault(source.name, source)
            if before.reads != source.reads:
                raise ValueError(
                    f"source {source.name} reads {before.told()} at first and {source.told()} from a change on; give "
                    "what is new a name of its own"
                )
            if before.max_epochs is None:
                known[source.name] = source
            elif source.max_epochs not in (None, before.max_epochs):
                raise ValueError(
                    f"source {source.name} has max_epochs {before.max_epochs:g} at first and {source.max_epochs:g} "
                    "from a change on, and they count all that the run reads of it; give it once"
                )
