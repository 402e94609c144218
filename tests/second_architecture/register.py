"""Makes two stacks known to this process: a run's YAML may then name them."""

from collections.abc import Iterator
from contextlib import contextmanager

from megatron_patches.models import registry
from megatron_patches.objectives import build
from megatron_patches.objectives.objective_config import OBJECTIVES
from tests.second_architecture.architecture import TwoStacks
from tests.second_architecture.config import SecondHalfConfig
from tests.second_architecture.objective import SecondHalf


def register_all() -> None:
    """The architecture and its objective; a second call changes nothing. For processes that do nothing else."""
    registry.register(TwoStacks())
    build.register_objective(
        SecondHalfConfig, lambda section, seed, end_of_document, special: SecondHalf(section, seed, end_of_document)
    )


@contextmanager
def registered() -> Iterator[None]:
    """The same within it, and no longer: other tests of the process say which kinds there are."""
    known = (registry._ARCHITECTURES, registry.MODELS._models, build._BUILDERS, OBJECTIVES._models)
    before = [dict(each) for each in known]  # type: ignore[call-overload]
    register_all()
    try:
        yield
    finally:
        for each, kept in zip(known, before, strict=True):
            each.clear()
            each.update(kept)  # type: ignore[attr-defined]
