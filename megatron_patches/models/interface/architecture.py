"""What an architecture must say of itself. All but `layers` is torch-free: command lines ask it before a run starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import AttentionKind, ModelInputs
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.name_map import NameMap
from megatron_patches.parameters.row import ParameterRow, PathLayer
from megatron_patches.training.training_config import TrainingConfig

if TYPE_CHECKING:  # torch
    from megatron_patches.models.interface.layer_spec import LayerSpec
    from megatron_patches.parallel.process_groups import ProcessGroups
    from megatron_patches.parallel.randomness import StepRandomness

Device = Literal["cuda", "cpu"]
Recomputation = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class FlopsPerToken:
    """FLOPs of the training of one token that counts, by convention; they differ by what attention, logits and
    recomputation count."""

    palm: float
    """6N + 12LHQT (Chowdhery et al. 2022, appendix B): N parameters that are multiplied with, attention whole"""
    bigscience: float
    """24 c l h^2 (1 + s/(6h) + V/(16 l h)), c = 4 with full recomputation, else 3 (Narayanan et al. 2021); the MLP,
    keys and values at their own sizes"""
    causal: float
    """what the mathematics needs: every matrix forward and backward, and of the scores only those that attention
    keeps"""
    computed: float
    """what a GPU is given to do: attention whole, and what recomputation repeats"""


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch on one rank."""

    blocks: Mapping[str, int]
    """kept of each block, by its stack"""
    repeated: int
    """made again, for one block at a time, where blocks are recomputed"""
    stem: int
    """kept of what precedes the first block: embedding norm, dropout, the ids"""
    head: int
    """kept of what follows the last block: its output, the final norm, the loss's vectors"""
    logits: int
    """kept of the logits"""
    loss: int
    """beside them while the loss is differentiated: their gradient, and what it is computed in"""
    backward: int
    """gradients of activations while a block is differentiated, at most"""
    stream: int
    """what pipeline stages send each other: the float part of the stream between layers"""
    constants: int = 0
    """tables that all layers share: ALiBi's bias"""


@dataclass(frozen=True)
class Workload:
    """What a model is given to do on a rank in one pass."""

    lengths: SampleLengths
    inputs: ModelInputs
    training: TrainingConfig
    layout: Layout
    micro_batch: int
    recomputation: Recomputation
    device: Device = "cuda"

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return 4 if self.training.precision == "fp32" else 2


class NameFormat(Protocol):
    """How another program names an architecture's parameters, and what it saves beside them."""

    def names_found(self, names: Sequence[str], model: Any, settings: Mapping[str, Any]) -> NameMap:
        """The map that fits a checkpoint's names and saved settings."""

    def names_to_write(self, model: Any) -> NameMap:
        """The map for an export."""

    def setting_differences(self, model: Any, settings: Mapping[str, Any]) -> list[str]:
        """What a checkpoint's saved settings say that shapes do not, where the model differs; a phrase each."""


class Architecture(ABC):
    """One kind of model. `models/registry.py` lists them; a run's `model.name` chooses one."""

    config: ClassVar[type[ModelSection]]
    """its `model:` section; the literal of its `name` is the architecture's"""
    parts: ClassVar[tuple[str, ...]]
    """what its parameters are counted under (`ParameterRow.part`), in the order in which people read them"""
    requires: ClassVar[frozenset[str]]
    """fields that it cannot do without"""
    accepts: ClassVar[frozenset[str]]
    """further fields that it reads"""
    patterns: ClassVar[frozenset[AttentionKind]]
    """what its tokens can be told to see"""
    keeps_keys: ClassVar[bool] = False
    """whether all of its attention is a `CachingAttention`, so that texts are continued token by token"""

    @abstractmethod
    def parameters(self, model: Any, lengths: SampleLengths) -> list[ParameterRow]:
        """Every parameter, first layer to last, what is shared once."""

    @abstractmethod
    def path(self, model: Any) -> list[PathLayer]:
        """The layers that have parameters, in the order of the forward pass, a shared one in each of its places."""

    @abstractmethod
    def flops(self, model: Any, lengths: SampleLengths, recomputation: Recomputation = "none") -> FlopsPerToken:
        """Floating-point work of one token that counts."""

    @abstractmethod
    def activations(self, model: Any, workload: Workload) -> Activations:
        """What one micro-batch keeps on a rank."""

    @abstractmethod
    def describe(self, model: Any) -> str:
        """One line for people."""

    def problems(self, model: Any, workload: Workload) -> Iterator[Problem]:
        """What is wrong between the model's section and the rest of a run; tensor parallelism is asked of `Cut`s."""
        yield from ()

    def formats(self) -> Mapping[str, NameFormat]:
        """Names in other programs' checkpoints, by the title that `--names` takes."""
        return {}

    def transformers_formats(self) -> Sequence[TransformersFormat]:
        """Its forms in transformers, the first that can express a model before others."""
        return ()

    @abstractmethod
    def layers(
        self,
        model: Any,
        lengths: SampleLengths,
        inputs: ModelInputs,
        groups: ProcessGroups,
        randomness: StepRandomness,
        recomputation: Recomputation = "none",
    ) -> list[LayerSpec]:
        """The layers, first to last; nothing is built yet. Here, and not before, torch is imported."""
