"""Makes two stacks known to this process: a run's YAML may then name them."""

from megatron_patches.models.registry import register
from megatron_patches.objectives.build import register_objective
from tests.second_architecture.architecture import TwoStacks
from tests.second_architecture.config import SecondHalfConfig
from tests.second_architecture.objective import SecondHalf


def register_all() -> None:
    """The architecture and its objective; a second call changes nothing."""
    register(TwoStacks())
    register_objective(SecondHalfConfig, SecondHalf)
