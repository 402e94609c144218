"""Merging what ranks hold, from files of every sort that DeepSpeed has written; each small enough to read here."""

from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.plain_optimizer import read_plain_optimizer
from megatron_patches.exchange.safe_pickle import FragmentAddress
from megatron_patches.exchange.zero_partitions import Shards, merge_partitions, merge_shares

SHAPES = {"a": (2, 3), "b": (5,)}


def address(start: int, numel: int) -> FragmentAddress:
    found = FragmentAddress()
    found.start, found.numel = start, numel
    return found


def partitions(elastic: bool = False, step_in_group: bool = False) -> list[tuple[Path, dict[str, Any]]]:
    """11 elements and 1 of padding on 3 ranks; of `b` there is something on two of them."""
    flat = torch.arange(12.0)
    mappings = [{"a": address(0, 4)}, {"a": address(0, 2), "b": address(2, 2)}, {"b": address(0, 3)}]
    states = []
    for rank, mapping in enumerate(mappings):
        mine = flat[4 * rank : 4 * rank + 4]
        lean = mine[:3] if rank == 2 else mine
        moments = {"exp_avg": (lean if elastic else mine) + 100}
        step = torch.tensor(9.0)
        state: dict[str, Any] = {"single_partition_of_fp32_groups": [lean], "param_slice_mappings": [mapping]}
        if elastic:
            state |= {"base_optimizer_state": [moments], "base_optimizer_state_step": 9}
        else:
            group = {"params": [0]} | ({"step": 9} if step_in_group else {})
            held = moments if step_in_group else moments | {"step": step}
            state["base_optimizer_state"] = {"state": {0: held}, "param_groups": [group]}
        states.append((Path(f"rank{rank}"), state))
    return states


def whole(read: Shards, name: str, kind: str) -> list[float]:
    stretches = read.shards(SHAPES, "here")[name, kind].stretches
    assert [each.start for each in stretches] == [sum(e.elements for e in stretches[:n]) for n in range(len(stretches))]
    return torch.cat([each.read(0, each.elements) for each in stretches]).tolist()


@pytest.mark.parametrize(("elastic", "step_in_group"), [(False, False), (False, True), (True, False)])
def test_partitions_are_put_together_by_name(elastic: bool, step_in_group: bool) -> None:
    """As torch's Adam, apex' and DeepSpeed's fused ones, and elastic checkpoints keep the count of updates."""
    read = merge_partitions(partitions(elastic, step_in_group))
    assert whole(read, "a", "master") == [0, 1, 2, 3, 4, 5]
    assert whole(read, "b", "master") == [6, 7, 8, 9, 10]
    assert whole(read, "b", "exp_avg") == [106, 107, 108, 109, 110]
    assert set(read.steps.values()) == {9}


def test_a_lost_rank_is_noticed_by_the_elements() -> None:
    with pytest.raises(TrainyardError, match=r"master of b \(2 of 5\), exp_avg of b \(2 of 5\)"):
        merge_partitions(partitions()[:2]).shards(SHAPES, "here")


def test_exchanged_ranks_are_noticed() -> None:
    first, second, third = partitions()
    with pytest.raises(TrainyardError, match="rank1 holds elements of b that do not follow"):
        merge_partitions([first, third, second])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"param_slice_mappings": None}, "does not say which parameters its elements belong to"),
        ({"single_partition_of_fp32_groups": [torch.zeros(2)]}, "ends within master of a"),
        (
            {"base_optimizer_state": {"state": {0: {"row": torch.zeros(2, 2)}}, "param_groups": [{"params": [0]}]}},
            r"keeps row as a tensor of \(2, 2\), not one number an element",
        ),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(edit: dict[str, Any], message: str) -> None:
    states = partitions()
    states[0] = (states[0][0], states[0][1] | edit)
    with pytest.raises(TrainyardError, match=message):
        merge_partitions(states)


def test_shares_of_every_parameter() -> None:
    """ZeRO 3 on 4 ranks: 6 elements are 2 + 2 + 2 + 0, 5 are 2 + 2 + 1 + 0, each share filled up to 2."""
    a, b = torch.arange(8.0), torch.arange(8.0) + 10
    states = []
    for rank in range(4):
        flat = torch.cat([a[2 * rank : 2 * rank + 2], b[2 * rank : 2 * rank + 2]])
        optimizer = {"state": {0: {"exp_avg": flat + 100, "step": 4}}, "param_groups": [{"params": [0], "lr": 0.1}]}
        states.append((Path(f"rank{rank}"), {"fp32_flat_groups": [flat], "optimizer_state_dict": optimizer}))
    read = merge_shares(states, [SHAPES])
    assert whole(read, "a", "master") == [0, 1, 2, 3, 4, 5]
    assert whole(read, "b", "exp_avg") == [110, 111, 112, 113, 114]
    assert set(read.steps.values()) == {4}
    assert read.optimizer == {"lr": 0.1}


def plain(groups: list[list[int]], named: bool = False) -> dict[str, Any]:
    shapes = list(SHAPES.values())
    state = {number: {"exp_avg": torch.full(shapes[number], float(number)), "step": 2} for number in range(2)}
    names = list(SHAPES)
    return {
        "state": state,
        "param_groups": [
            {"params": held} | ({"param_names": [names[number] for number in held]} if named else {}) for held in groups
        ],
    }


def test_zero_0_by_order_by_pattern_and_by_name() -> None:
    path = Path("x")
    for saved, groups in (
        (plain([[0, 1]]), ()),
        (plain([[0], [1]]), (("a",), ("*",))),
        (plain([[0], [1]], named=True), ()),
    ):
        read = read_plain_optimizer(saved, SHAPES, groups, path)
        assert (whole(read, "a", "exp_avg"), whole(read, "b", "exp_avg")) == ([0.0] * 6, [1.0] * 5)
    with pytest.raises(TrainyardError, match="2 groups number their parameters and do not name them"):
        read_plain_optimizer(plain([[0], [1]]), SHAPES, (), path)
    with pytest.raises(TrainyardError, match="has 2 groups, the map of names says 3"):
        read_plain_optimizer(plain([[0], [1]]), SHAPES, (("a",), ("b",), ("c",)), path)


def test_zero_0_with_one_flat_master_a_group() -> None:
    """DeepSpeed's fused optimizer for fp16 and bf16."""
    flat = torch.arange(12.0)
    inner = {"state": {0: {"exp_avg": flat + 100, "step": 2}}, "param_groups": [{"params": [0]}]}
    read = read_plain_optimizer({"optimizer_state_dict": inner, "fp32_groups_flat": [flat]}, SHAPES, (), Path("x"))
    assert (whole(read, "a", "master"), whole(read, "b", "exp_avg")) == (
        [0, 1, 2, 3, 4, 5], [106, 107, 108, 109, 110],
    )  # fmt: skip
