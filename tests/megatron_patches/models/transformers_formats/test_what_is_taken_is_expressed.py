"""What a format says it takes, transformers computes; what it refuses, transformers computes with no setting."""

import pytest

from tests.megatron_patches.models.transformers_formats.variants import ALL, Variant

TAKEN = [variant for variant in ALL if variant.taken]
REFUSED = [variant for variant in ALL if not variant.taken]
NEAREST = 1e-4
"""two models say the same where no logit, of a size about 1, differs by more"""


@pytest.mark.parametrize("variant", TAKEN, ids=[variant.title for variant in TAKEN])
def test_what_is_taken_is_expressed(variant: Variant, distances: dict[str, tuple[float, float] | str]) -> None:
    said = distances[variant.title]
    assert isinstance(said, tuple), said
    distance, spread = said
    assert spread > 0.15, "logits that are all alike would agree with anything"
    assert distance <= NEAREST


@pytest.mark.parametrize("variant", REFUSED, ids=[variant.title for variant in REFUSED])
def test_what_is_refused_has_no_expression(variant: Variant, distances: dict[str, tuple[float, float] | str]) -> None:
    said = distances[variant.title]
    assert isinstance(said, tuple), said
    assert said[0] > 3 * NEAREST  # gelu and its approximation differ by 5e-4 at most
