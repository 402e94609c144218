"""Where samples come from: the sources of a blend, and the groups that a run is validated on."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_tools.samples.blend import whole_weights
from data_tools.splits.shards import parse_shards
from data_tools.splits.shares import parse_range
from data_tools.streams.text_config import TextConfig
from megatron_patches.configuration.section import PathText, Section, path_field

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*\Z")
LONGEST_NAME = 80
_OF_ONE_SOURCE = ("path", "text", "range", "shards")


class SourceConfig(Section):
    """Documents that are read together: of a dataset, or raw text that is tokenized while the run trains."""

    short_paths = ("text",)

    name: str = Field(
        max_length=LONGEST_NAME, description="what people, records and curves call it: letters, digits, _ . + -"
    )
    weight: float = Field(1.0, gt=0, description="share of samples, in proportion to the other sources' weights")
    path: PathText | None = path_field(
        "prefix of a dataset, or a pattern such as data/en-* whose datasets are read one after the other, sorted", None
    )
    text: TextConfig | None = Field(
        None,
        description="raw text in place of path, tokenized while the run trains: data/raw/*.jsonl, or {path: hf:NAME, "
        "key: content}",
    )
    range: str = Field(
        "0:1",
        description="which of the documents, START:END as shares of all of them: 0:0.95 leaves out the last 5 %; split "
        "cuts what is left",
    )
    shards: str = Field(
        ":",
        description="which of the datasets that path matches, START:END counted from 0 after sorting: '1:', in "
        "quotes, leaves out the first",
    )
    order: Literal["shuffled", "file"] = Field(
        "shuffled",
        description="how samples of a dataset follow each other: shuffled, in another order every epoch, or file, as "
        "they lie (Megatron-LM's --dataloader-type single), which is for datasets that were shuffled before",
    )
    max_epochs: float | None = Field(
        None, gt=0, description="most readings that the run may plan, in epochs; unset means data.max_epochs"
    )

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        return plain_name(name)

    @field_validator("range")
    @classmethod
    def _range_is_readable(cls, text: str) -> str:
        parse_range(text)
        return text

    @field_validator("shards")
    @classmethod
    def _shards_are_readable(cls, text: str) -> str:
        parse_shards(text)
        return text

    @model_validator(mode="after")
    def _is_one_thing(self) -> "SourceConfig":
        if self.path is None and self.text is None:
            raise ValueError(
                f"source {self.name} has neither path nor text; give path for a dataset, text for raw text"
            )
        if self.text is None:
            return self
        if self.path is not None:
            raise ValueError(f"source {self.name} has both path and text; keep path for a dataset, text for raw text")
        if self.order != "shuffled":
            raise ValueError(
                f"order is for datasets, and source {self.name} reads text, in the order of its files with "
                "text.shuffle_documents 1; remove it"
            )
        if self.range != "0:1" or self.shards != ":":
            raise ValueError(
                f"range and shards choose documents and datasets that are known beforehand, and the text of source "
                f"{self.name} is read as it comes; name other files (text.path), or make a dataset (tools/preprocess)"
            )
        return self

    @property
    def reads(self) -> tuple[object, ...]:
        """What decides which documents it gives, and in which order."""
        return self.path, self.text, self.range, self.shards, self.order

    def told(self) -> str:
        """What it reads, in a few words."""
        if self.text is not None:
            return f"text {self.text.path}"
        usual = {"shards": ":", "range": "0:1", "order": "shuffled"}
        given = {key: getattr(self, key) for key in usual}
        return " ".join([str(self.path), *(f"{key} {value}" for key, value in given.items() if value != usual[key])])


class ValidationGroupConfig(Section):
    """What is validated on together, with one loss."""

    short_paths = ("path", "text", "text.path")

    name: str = Field(
        max_length=LONGEST_NAME, description="name of its loss in records and curves: letters, digits, _ . + -"
    )
    sources: list[SourceConfig] = Field(
        min_length=1,
        description="datasets that are read in proportion to their weights; the keys of a single one may stand in the "
        "group itself: {name: en, path: data/en-valid}",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_one_source(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "sources" in values or not {"path", "text"} & values.keys():
            return values
        source = {key: values[key] for key in _OF_ONE_SOURCE if key in values}
        rest = {key: value for key, value in values.items() if key not in source}
        name = values.get("name")
        # of a group without a right name that is said once, of the group
        right = isinstance(name, str) and _NAME.match(name) and len(name) <= LONGEST_NAME
        named = name if right else "unnamed"
        return {**rest, "sources": [{"name": named, **source}]}

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        return plain_name(name)

    @field_validator("sources")
    @classmethod
    def _sources_make_a_blend(cls, sources: list[SourceConfig]) -> list[SourceConfig]:
        check_names("source", (each.name for each in sources))
        whole_weights([each.weight for each in sources])
        capped = next((each for each in sources if each.max_epochs is not None), None)
        if capped:
            raise ValueError(f"max_epochs of {capped.name} has no effect: validation reads nothing twice; remove it")
        ordered = next((each for each in sources if each.order != "shuffled"), None)
        if ordered:
            raise ValueError(
                f"order of {ordered.name} has no effect: validation reads the first samples, as they lie; remove it"
            )
        usual = TextConfig.model_fields["shuffle_documents"].default
        shuffled = next((each for each in sources if each.text and each.text.shuffle_documents != usual), None)
        if shuffled:
            raise ValueError(
                f"shuffle_documents of {shuffled.name} has no effect: validation reads the first documents of a text, "
                "in order; remove it"
            )
        return sources


def check_names(what: str, names: Iterable[str]) -> None:
    """Raises ValueError where two have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"two have the name {twice[0]}; give each {what} a name of its own")


def plain_name(name: str) -> str:
    """The name; raises ValueError where it could not stand in records, curves and file names."""
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no name: use letters, digits and _ . + -, a letter or digit first")
    return name
