"""The architectures that there are. A new one is a folder in `models/` and a line below. Torch-free."""

from megatron_patches.configuration.kinds import Kinds
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.encoder.architecture import Encoder
from megatron_patches.models.gpt.architecture import GPT
from megatron_patches.models.interface.architecture import Architecture

MODELS: Kinds[ModelSection] = Kinds(default="gpt")
"""what a run's `model:` may be"""

_ARCHITECTURES: dict[type[ModelSection], Architecture] = {}


def register(architecture: Architecture) -> None:
    """Make an architecture known; from then on a run's `model.name` may be its."""
    MODELS.register(architecture.config)
    _ARCHITECTURES[architecture.config] = architecture


def architecture_of(model: ModelSection) -> Architecture:
    """The architecture whose section this is."""
    return _ARCHITECTURES[type(model)]


def all_architectures() -> list[Architecture]:
    """Every one that is registered."""
    return list(_ARCHITECTURES.values())


register(GPT())
register(Encoder())
