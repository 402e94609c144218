"""The manifest of a dataset: `PREFIX.manifest.json` beside `PREFIX.bin` and `PREFIX.idx`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from data_tools.datasets.indexed_dataset_format import appended, bin_path
from data_tools.domain_tokens.multiplication import Mode
from data_tools.domain_tokens.report import InjectionFacts
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import MANIFEST, FileRecord, Manifest, read_manifest, refuse_invalid
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_serializer(mode="wrap")
    def _leave_out_what_does_not_apply(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Facts that came later are written only where they say something, so that ids of datasets do not change."""
        written: dict[str, Any] = write(self)
        return {
            name: value
            for name, value in written.items()
            if type(self).model_fields[name].json_schema_extra != _LATER
            or value != type(self).model_fields[name].default
        }


_LATER: dict[str, JsonValue] = {"written": "where it says something"}
"""mark of a field that datasets without such facts do not have"""


class TokenizerFacts(_Facts):
    """The tokenizer a dataset was made with."""

    id: str
    name: str
    vocab_size: int
    end_of_document: int | None
    as_ids_alone: int = Field(0, json_schema_extra=_LATER)
    """Tokens that text never becomes, so that a dataset may be without them."""


class SourceFacts(_Facts):
    """One file the documents came from."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    documents: int
    stretch: tuple[int, int] | None = Field(None, json_schema_extra=_LATER)
    """From which byte of the file to which (not included) it was read, where jobs share it;
    size and hash are those of this stretch. None: all of it."""

    @field_validator("stretch", mode="before")
    @classmethod
    def _as_json_writes_it(cls, stretch: object) -> object:
        return tuple(stretch) if isinstance(stretch, list) else stretch


class SettingsFacts(_Facts):
    """How the documents were read."""

    json_key: str
    """Key of this dataset's texts; of pairs both keys, of a merged one all keys, separated by commas."""
    json_keys: list[str]
    """All keys of the same reading: their datasets have as many documents, in the same order."""
    append_eod: bool
    parse_special: bool = True
    """Whether text that spells a control token became it; datasets without this fact were made so."""
    records: Literal["text", "pairs", "chat"] = Field("text", json_schema_extra=_LATER)
    """What a document was: a text, or a record with answers, whose odd-numbered sequences are the answers."""
    template: Literal["plain", "tokenizer"] | None = Field(None, json_schema_extra=_LATER)
    """What was written around messages; None: texts as they are."""
    template_sha256: str | None = Field(None, json_schema_extra=_LATER)
    """Hash of what the template writes, or of the pairs' separator."""
    separator: str | None = Field(None, json_schema_extra=_LATER)
    """What the answers of pairs without a template begin with."""
    tokens_asked: int | None = Field(None, json_schema_extra=_LATER)
    """Reading stopped after the document that brought the first key's dataset to this many tokens. None: all was read,
    or the dataset was merged or split. `sources` has the files that were read; of the last one it counts the documents
    that were."""
    inject: Mode | None = Field(None, json_schema_extra=_LATER)
    """Which expressions became tokens of the multiplication table; None: none did."""
    synthetic_documents: int | None = Field(0, json_schema_extra=_LATER)
    """Made-up documents of multiplication facts among those of the sources; None: there may be some, and how many is
    not known, as in a part of a dataset."""
    synthetic_seed: int | None = Field(None, json_schema_extra=_LATER)
    """What they follow from; None: there are none, or they follow from several."""
    max_length: int | None = Field(None, json_schema_extra=_LATER)
    """Tokens that a document kept at most, its end-of-document token included; None: all."""
    shuffle_seed: int | None = Field(None, json_schema_extra=_LATER)
    """What the order of documents follows from; None: they have that of the sources."""
    shard_tokens: int | None = Field(None, json_schema_extra=_LATER)
    """Tokens that a document brought the first key's dataset to, with which this shard ends; None: it is no shard."""
    shard: int | None = Field(None, json_schema_extra=_LATER)
    """Number of this shard, from 0."""
    share: str | None = Field(None, json_schema_extra=_LATER)
    """Which part of the sources was read, such as 3/8: of eight, the one that 0 counts as the fourth."""


class AnswerFacts(_Facts):
    """The answers of a dataset of records."""

    answers: int
    tokens: int
    """Their tokens, those included with which they end."""


class DatasetFacts(_Facts):
    """What a dataset holds."""

    documents: int
    sequences: int
    tokens: int
    dtype: str
    largest_token_id: int
    empty_documents: int
    """Documents whose text gave no token."""
    tokenizer: TokenizerFacts
    settings: SettingsFacts | None = None
    """None for an adopted dataset, of which only the files are known."""
    sources: list[SourceFacts] = []
    """In the order of the documents; of a merged dataset the first 10,000, its parents name the rest."""
    number_not_read: int = 0
    """Files of the given folders that were left out."""
    not_read: list[str] = []
    """Names of the first hundred of them."""
    answers: AnswerFacts | None = Field(None, json_schema_extra=_LATER)
    """None for texts, and for adopted datasets, of which it is not known what their sequences are."""
    injection: InjectionFacts | None = Field(None, json_schema_extra=_LATER)
    """What injection did; None: there was none, or what it did to this part of a dataset is not known."""
    left_out: int = Field(0, json_schema_extra=_LATER)
    """Entries of the sources that were no documents (--max-bad), of all shards of one reading together."""
    shortened_documents: int = Field(0, json_schema_extra=_LATER)
    """Documents that had more tokens than `max_length`, of all shards of one reading together."""
    collections: list[dict[str, JsonValue]] = Field([], json_schema_extra=_LATER)
    """Datasets of the Hugging Face library that were read: name, split, and at which commit or fingerprint."""


def describe_tokenizer(tokenizer: Tokenizer) -> TokenizerFacts:
    """What a dataset's manifest says about its tokenizer."""
    return TokenizerFacts(
        id=tokenizer.id,
        name=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        end_of_document=tokenizer.end_of_document,
        as_ids_alone=tokenizer.as_ids_alone,
    )


def manifest_path(prefix: Path) -> Path:
    """Where the manifest of a dataset lies."""
    return appended(prefix, f".{MANIFEST}")


def check_name_of(prefix: Path) -> None:
    """Raises TrainyardError if a manifest cannot hold the names of a dataset's files."""
    try:
        FileRecord(path=bin_path(prefix).name, size=0, sha256="0" * 64)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise TrainyardError(f"a dataset cannot be called '{shortened(prefix.name)}': {reason}; rename it") from None


def read_dataset_manifest(prefix: Path, allow_invalid: bool = False) -> tuple[Manifest, DatasetFacts]:
    """Reads the manifest of a dataset that may be used; with `allow_invalid` one that is marked invalid may.

    Raises:
        TrainyardError: there is none, it was edited, it is no dataset's, or it marks the dataset invalid.
    """
    path = manifest_path(prefix)
    if not path.is_file():
        raise TrainyardError(
            f"dataset {prefix} has no manifest ({path.name}), so its tokenizer is unknown. Make one with "
            f"tools/dataset adopt {prefix} --tokenizer DIR, naming the tokenizer it was made with"
        )
    manifest = read_manifest(path)
    if manifest.kind != "dataset":
        raise TrainyardError(f"{path} belongs to a {manifest.kind}, expected a dataset")
    if not allow_invalid:
        refuse_invalid(manifest, path, "set data.allow_invalid to train on it all the same")
    try:
        return manifest, DatasetFacts.model_validate(manifest.facts)
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise TrainyardError(f"{path} lacks or misstates the facts {missing}; make the dataset again") from None
