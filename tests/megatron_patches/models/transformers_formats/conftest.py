"""One process, which imports transformers once, compares the models of all tests of this folder."""

import pytest

from tests.megatron_patches.models.transformers_formats.expressions import differences
from tests.megatron_patches.models.transformers_formats.readings import Answer, answers
from tests.megatron_patches.models.transformers_formats.variants import ALL
from tests.ranks import run_on_ranks

Compared = tuple[dict[str, tuple[float, float] | str], dict[str, list[Answer]]]


def compare() -> Compared:
    """What came of each of our models, and of each change of a configuration of theirs."""
    from tests.megatron_patches.models.transformers_formats.own_logits import OwnModels

    own = OwnModels()
    return differences(own, ALL), answers(own)


@pytest.fixture(scope="session")
def compared() -> Compared:
    return run_on_ranks(compare, 1)[0]


@pytest.fixture
def distances(compared: Compared) -> dict[str, tuple[float, float] | str]:
    """By a variant's title."""
    return compared[0]


@pytest.fixture
def readings(compared: Compared) -> dict[str, list[Answer]]:
    """By format."""
    return compared[1]
