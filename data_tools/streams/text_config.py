"""Raw text as a source of a run: `text:` in place of `path:`."""

from typing import Any

from pydantic import Field, model_validator

from data_tools.reading.hugging_face_name import PREFIX, is_hub
from megatron_patches.configuration.section import PathText, Section, path_field

MOST_PATIENCE_SECONDS = 1200
"""for one answer of the hub, with all tries: other ranks wait for rank 0, half an hour at most"""
_OF_HUB = ("split", "revision", "streaming", "timeout_seconds", "retries")


class TextConfig(Section):
    """Documents that are tokenized while the run trains; a path alone is short for `{path: PATH}`."""

    path: PathText = path_field(
        "files of documents: one, a folder, or a pattern such as data/raw/*.jsonl; or hf:NAME for a dataset of the "
        "Hugging Face hub, hf:FOLDER for one on disk"
    )
    key: str = Field("text", min_length=1, description="key of a JSON object, or column, that holds a document's text")
    split: str | None = Field(
        None, min_length=1, description="split of a dataset of the hub; unset means train. Example: train"
    )
    revision: str | None = Field(
        None, min_length=1, description="commit, branch or tag of a dataset of the hub; unset: the newest"
    )
    streaming: bool = Field(
        True, description="read a dataset of the hub over the network as it is needed; false copies it first"
    )
    shuffle_documents: int = Field(
        10_000, ge=1, description="documents that are held and put in a random order at a time; 1 keeps their order"
    )
    append_eod: bool = Field(True, description="end each document with the tokenizer's end-of-document token")
    max_bad: int = Field(
        0, ge=0, description="documents that may be left out because they cannot be read; one more is an error"
    )
    timeout_seconds: float = Field(60.0, gt=0, description="longest wait for an answer of the hub, in seconds")
    retries: int = Field(5, ge=0, description="further tries after a failed one of the hub, each after a longer pause")

    @property
    def is_of_hub(self) -> bool:
        """Whether it is read through `datasets`."""
        return is_hub(self.path)

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, values: Any) -> Any:
        return {"path": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _has_effect(self) -> "TextConfig":
        fields = type(self).model_fields
        given = [key for key in _OF_HUB if getattr(self, key) != fields[key].default]
        if given and not self.is_of_hub:
            raise ValueError(
                f"{', '.join(given)} of {self.path} would do nothing: files are read where they lie, and it is for "
                f"datasets of the Hugging Face hub ({PREFIX}NAME). Remove {'it' if len(given) == 1 else 'them'}"
            )
        if (patience := self.timeout_seconds * (self.retries + 1)) > MOST_PATIENCE_SECONDS:
            raise ValueError(
                f"timeout_seconds {self.timeout_seconds:g} and retries {self.retries} wait {patience:,.0f} s for one "
                f"answer, and other ranks wait for it: {MOST_PATIENCE_SECONDS:,} s at most. Set one of them lower"
            )
        return self
