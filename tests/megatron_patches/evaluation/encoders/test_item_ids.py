"""Names of items: of equal content each its own, and the same ones in every evaluation."""

from megatron_patches.evaluation.encoders.item_ids import item_ids


def test_names_of_items() -> None:
    found = list(item_ids(["sun", "moon", "sun", "sun"]))
    assert found == ["27756f050e14a1cb", found[1], "27756f050e14a1cb-2", "27756f050e14a1cb-3"]
    assert found[1] not in found[2:]
