"""What formats of transformers have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from megatron_patches.models.interface.transformers_format import Obstacle, TensorPair, TransformersFormat
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.transformer.transformers_formats.switches import Taken, obstacles
from megatron_patches.parameters.row import ParameterRow


class SortedFormat(TransformersFormat):
    """A format whose settings are sorted in a table, and whose tensors follow from name and shape of each parameter."""

    taken: ClassVar[Mapping[str, Taken]]
    """for each key of the section what the format takes"""

    def obstacles(self, model: TransformerConfig) -> list[Obstacle]:
        return obstacles(model, self.taken)

    def pairs(self, model: TransformerConfig, rows: Sequence[ParameterRow]) -> list[TensorPair]:
        return [self.pair(row.name, row.shape, model) for row in rows]

    @abstractmethod
    def pair(self, name: str, shape: tuple[int, ...], model: Any) -> TensorPair:
        """The pair of one parameter.

        Args:
            shape: of its row.
        """
