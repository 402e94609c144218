"""Raw text as a source of a run: `text:` in place of `path:`."""

from pydantic import Field

from megatron_patches.configuration.section import PathText, Section, path_field


class TextConfig(Section):
    """Documents that are tokenized while the run trains."""

    short_paths = ("path",)

    path: PathText = path_field(
        "files of documents: one, a folder, or a pattern such as data/raw/*.jsonl; or hf:NAME for a dataset of the "
        "Hugging Face hub, hf:FOLDER for one on disk"
    )
    key: str = Field("text", min_length=1, description="key of a JSON object, or column, that holds a document's text")
    split: str | None = Field(None, description="split of a dataset of the hub; unset means train. Example: train")
    revision: str | None = Field(None, description="commit, branch or tag of a dataset of the hub; unset: the newest")
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
    retries: int = Field(5, ge=0, description="further tries after a failed one, each after a longer pause")
