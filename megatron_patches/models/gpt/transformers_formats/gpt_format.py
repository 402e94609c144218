"""What the formats of the GPT family have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.transformers_formats.switches import Taken, obstacles
from megatron_patches.models.interface.transformers_format import Obstacle, TensorPair, TransformersFormat
from megatron_patches.parameters.row import ParameterRow


class GPTFormat(TransformersFormat):
    """A format whose settings are sorted in a table, and whose tensors follow from name and shape of each parameter."""

    taken: ClassVar[Mapping[str, Taken]]
    """for each key of the section what the format takes"""

    def obstacles(self, model: GPTConfig) -> list[Obstacle]:
        return obstacles(model, self.taken)

    def pairs(self, model: GPTConfig, rows: Sequence[ParameterRow]) -> list[TensorPair]:
        return [self.pair(row.name, row.shape, model) for row in rows]

    @abstractmethod
    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        """The pair of one parameter.

        Args:
            shape: of its row.
        """
