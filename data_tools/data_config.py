"""The `data:` section of a run."""

from pydantic import Field, model_validator

from data_tools.datasets.split import parse_split
from megatron_patches.configuration.section import PathText, Section, path_field


class DataConfig(Section):
    """Which tokens a run reads and how they are cut into samples."""

    path: PathText = path_field("prefix of the dataset: PATH.bin, PATH.idx and PATH.manifest.json")
    tokenizer: PathText = path_field("folder of the tokenizer that the dataset was made with")
    split: str = Field("949,50,1", description="shares of documents for training, validation and test, in file order")
    sequence_length: int = Field(gt=0, description="tokens the model sees in one sample")
    max_epochs: float = Field(
        1.0, gt=0, description="most readings of the training tokens the run may plan, in epochs; more is refused"
    )
    allow_invalid: bool = Field(
        False, description="train although dataset or tokenizer, and so the run's checkpoints, are marked invalid"
    )

    @model_validator(mode="after")
    def _split_is_readable(self) -> "DataConfig":
        parse_split(self.split)
        return self
