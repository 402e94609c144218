"""The `data:` section of a run."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from data_tools.datasets.split import parse_split
from data_tools.samples.skipping import ranges_of
from megatron_patches.configuration.section import PathText, Section, path_field


class DataConfig(Section):
    """Which tokens a run reads and how they are cut into samples."""

    path: PathText = path_field("prefix of the dataset: PATH.bin, PATH.idx and PATH.manifest.json")
    tokenizer: PathText = path_field("folder of the tokenizer that the dataset was made with")
    split: str = Field(
        "949,50,1",
        description="shares of documents for training, validation and test, in file order; 100 is all for training",
    )
    sequence_length: int = Field(gt=0, description="tokens the model sees in one sample")
    max_epochs: float = Field(
        1.0, gt=0, description="most readings of the training tokens the run may plan, in epochs; more is refused"
    )
    skip_samples: list[list[int]] = Field(
        [],
        description="samples that are left out, as [FROM, TO) places in the run's order of samples, from 0, in "
        "ascending order: [[8000, 9600]]; a run that has begun can only change what lies ahead (tools/runs rollback)",
    )
    allow_invalid: bool = Field(
        False, description="train although dataset or tokenizer, and so the run's checkpoints, are marked invalid"
    )

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

    @model_validator(mode="after")
    def _split_is_readable(self) -> "DataConfig":
        parse_split(self.split)
        return self
