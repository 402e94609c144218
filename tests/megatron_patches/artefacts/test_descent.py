"""What a manifest says of the way that its artefact came."""

import pytest

from megatron_patches.artefacts.descent import (
    Position,
    Stretch,
    as_fact,
    branch_of,
    continued,
    descent_of_launch,
    number_of_launch,
    origin_of,
    way_of,
)
from megatron_patches.artefacts.manifest import Manifest, build_manifest


def saved(launch: int, step: int, began: int, source: Manifest | None = None, run_id: str = "x") -> Manifest:
    facts = {"run": run_id, "launch": f"{launch:04d}", "step": step}
    return build_manifest("checkpoint", [], facts | descent_of_launch(run_id, launch, began, source))


def test_a_branch_is_read_as_it_was_written() -> None:
    branch = continued(continued((), 1, 0), 3, 20)
    assert branch_of({"branch": as_fact(branch)}) == branch == (Position(1, 0), Position(3, 20))


@pytest.mark.parametrize("branch", [None, "x", [["0001"]], [["0001", -1]], [["0001", 1], 3], [["0001", True]]])
def test_what_is_no_branch_is_none(branch: object) -> None:
    assert branch_of({"branch": branch}) == ()


@pytest.mark.parametrize("launch", [None, 3, "import", "-1", "\u0663", "9" * 5000])
def test_what_is_no_launch_is_none(launch: object) -> None:
    assert number_of_launch(launch) == 0


def test_a_way_goes_back_through_the_launches_of_the_run() -> None:
    third = saved(3, 30, 20, saved(1, 20, 0))
    assert list(way_of(third.facts)) == [Stretch("x", 3, 30), Stretch("x", 1, 21)]
    assert list(way_of(saved(5, 40, 30, third).facts))[:2] == [Stretch("x", 5, 40), Stretch("x", 3, 31)]


def test_a_way_goes_on_in_the_run_that_the_weights_are_of() -> None:
    parent = saved(2, 30, 20, saved(1, 20, 0))
    child = saved(4, 7, 5, saved(1, 5, 0, parent, "child"), "child")
    expected = [Stretch("child", 4, 7), Stretch("child", 1, 6), parent.id, Stretch("x", 2, 31), Stretch("x", 1, 21)]
    assert list(way_of(child.facts)) == expected
    export = build_manifest("export", [], {"origin": origin_of(parent)}, [parent.id])
    imported = build_manifest("checkpoint", [], {"step": 30, "origin": origin_of(export)}, [export.id])
    back = [imported.id, export.id, parent.id, Stretch("x", 2, 31), Stretch("x", 1, 21)]
    assert list(way_of(saved(1, 40, 30, imported, "third").facts)) == [Stretch("third", 1, 40), *back]


def test_old_and_odd_manifests_have_no_way() -> None:
    assert list(way_of({"launch": "0001", "step": 30})) == []
    assert list(way_of({"branch": [["0001", 0]], "run_id": 3, "step": 30, "origin": {"id": 4, "origin": []}})) == []
    assert descent_of_launch(None, 1, 0, None) == {}


def test_a_run_goes_on_from_a_checkpoint_of_an_earlier_version() -> None:
    old = build_manifest("checkpoint", [], {"run": "x", "launch": "0007", "step": 30})
    assert list(way_of(saved(8, 40, 30, old).facts)) == [Stretch("x", 8, 40), old.id]
