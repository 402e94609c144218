"""The same logits as ModernBERT and BERT of transformers with the same random weights; EuroBERT is in the family's."""

from functools import cache

import numpy as np
import pytest

from megatron_patches.parallel.layout import Layout
from tests.megatron_patches.models.encoder_family import FAMILY, encoder_reference
from tests.megatron_patches.models.test_family_logits import LAYOUTS, logits_of
from tests.ranks import run_on_ranks

known = cache(encoder_reference)


@cache
def _all_logits(layout: str) -> dict[str, list[np.ndarray]]:
    """By kind, what each rank of the last stage says."""
    ranks = run_on_ranks(logits_of, LAYOUTS[layout].world_size, LAYOUTS[layout], [known(kind) for kind in FAMILY])
    return {kind: [rank[at] for rank in ranks if rank[at] is not None] for at, kind in enumerate(FAMILY)}


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_equal_transformers(layout: str, kind: str) -> None:
    expected = known(kind).logits
    assert expected.std() > 0.5, "logits that are all alike would agree with anything"
    found = _all_logits(layout)[kind]
    assert found
    for logits in found:
        assert np.abs(logits - expected).max() < 1e-4


def test_a_changed_weight_changes_the_logits() -> None:
    """So that the comparison above would see an unused parameter."""
    changed = [
        (kind, name) for kind in FAMILY for name in known(kind).shapes
        if not name.startswith(("layers.1", "layers.2", "layers.3"))
    ]  # fmt: skip
    given = [known(kind).changed(name) for kind, name in changed]
    (found,) = run_on_ranks(logits_of, 1, Layout(1, 1, 1), given)
    for (kind, name), logits in zip(changed, found, strict=True):
        assert np.abs(logits - known(kind).logits).max() > 1e-3, (kind, name)
