"""p values adjusted for several tasks."""

from megatron_patches.evaluation.statistics.holm import holm


def test_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == [0.03, 0.06, 0.06, 0.02]
    assert holm([0.5, 0.6]).tolist() == [1, 1]
    assert holm([0.7]).tolist() == [0.7]
