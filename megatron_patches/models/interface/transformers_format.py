"""What a format of transformers says of itself: which models it can express, and how their weights are stored there.

One object reads both ways: exports and imports go by the same lines. Torch-free; tensors are only ever reshaped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.parameters.row import ParameterRow

if TYPE_CHECKING:
    from torch import Tensor

Task = Literal["text-generation", "fill-mask"]


@dataclass(frozen=True)
class Obstacle:
    """A setting that keeps a model out of a format."""

    setting: str
    """key of the model's section, dotted: `position_embedding.pairs`"""
    value: str
    """as the YAML has it"""
    takes: str
    """what the format takes in its place, as a phrase: `half`, `4 * hidden_size (192)`"""


@dataclass(frozen=True)
class TensorPair:
    """One of our parameters, and the tensors of theirs that hold it."""

    ours: str
    """canonical name"""
    theirs: tuple[str, ...]
    """names in their files"""
    split: Callable[[Tensor], Sequence[Tensor]]
    """our tensor in its row's shape (`ParameterRow.shape`) to theirs, in their order; rows that only pad the vocabulary
    are left out"""
    join: Callable[[Sequence[Tensor]], Tensor]
    """the way back; without the padding rows"""


@dataclass(frozen=True)
class FilledTensor:
    """A tensor that they have and we do not: it has one value throughout, and so does nothing."""

    name: str
    shape: tuple[int, ...]
    value: float = 0.0


@dataclass(frozen=True)
class ModelRead:
    """What a configuration of theirs says."""

    section: dict[str, Any]
    """the `model:` section that it stands for, `name` included"""
    positions: int | None
    """rows of its table of positions, or the length that it was trained for; None where it says none"""


class TransformersFormat(ABC):
    """One `model_type` of transformers for one of our architectures."""

    model_type: ClassVar[str]
    """as `config.json` has it"""
    class_name: ClassVar[str]
    """the class that `architectures` of `config.json` names"""
    task: ClassVar[Task] = "text-generation"
    """what it is made for, as the hub calls it; `fill-mask`: every token sees all others"""
    base: ClassVar[str]
    """what all names of tensors begin with, those of the head apart"""
    table: ClassVar[str]
    """name of the table of tokens, which a tied head is too"""

    @abstractmethod
    def obstacles(self, model: Any) -> list[Obstacle]:
        """Settings of the model that it cannot express; none: it can."""

    @abstractmethod
    def config(self, model: Any, lengths: SampleLengths) -> dict[str, JsonValue]:
        """`config.json` without what every format has (`COMMON_KEYS`)."""

    @abstractmethod
    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        """The model of a `config.json`.

        Raises:
            Refused: it asks for something that our architecture has not; the keys are named.
        """

    def as_read(self, model: Any) -> Any:
        """The model with what can be said in two ways as `read` says it."""
        return model

    @abstractmethod
    def pairs(self, model: Any, rows: Sequence[ParameterRow]) -> list[TensorPair]:
        """One for each parameter of ours.

        Args:
            rows: all of the model's, `RunConfig.parameters`.
        """

    @abstractmethod
    def filled(self, model: Any) -> list[FilledTensor]:
        """What they have beside these."""

    def current_name(self, name: str) -> str:
        """The name by which `pairs` know a tensor of one of their files.

        Files of the model without its head, as those of GPT-2 and BLOOM on the hub, leave out `base`.
        """
        return name if name.startswith((f"{self.base}.", "lm_head.")) else f"{self.base}.{name}"

    def ignored(self, name: str) -> bool:
        """Whether one of their files' tensors is no parameter: a buffer that old versions saved."""
        return False


COMMON_KEYS = ("architectures", "model_type", "dtype", "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size",
               "tie_word_embeddings", "transformers_version")  # fmt: skip
"""keys of `config.json` that the exporter writes for every format"""
