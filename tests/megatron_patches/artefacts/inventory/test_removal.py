"""What gc may take, and what it may not."""

import os
import shutil
from pathlib import Path

import pytest

from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder
from megatron_patches.artefacts.inventory.invalidation import invalidate
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.inventory.removal import RemovalPlan, carry_out, plan_removal
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import mark_damaged, pin
from megatron_patches.artefacts.retention import CopiedRetention
from tests.megatron_patches.artefacts.inventory.conftest import SmallInventory
from tests.small_artefacts import RUN, make_checkpoint

OLD = 1_600_000_000


def age(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (OLD, OLD))


def plan(inventory: SmallInventory, retention: CopiedRetention | None = None) -> RemovalPlan:
    with open_catalogue(inventory.runs, inventory.data, thorough=True) as catalogue:
        return plan_removal(catalogue, inventory.runs, [RUN], retention)


def copied(
    inventory: SmallInventory, *manifests: Manifest, verified: str | None = "2026-01-01", whole: bool = True
) -> None:
    recorder = CopyRecorder(inventory.runs / RUN)
    for manifest in manifests:
        recorder.record(Copy(manifest.id, manifest.id, manifest.id, "s3://x", 1, whole, verified, "as sent"))


def test_leftovers_go_when_they_are_old(inventory: SmallInventory) -> None:
    shelf = inventory.checkpoint(100).parent
    for suffix in ("0001.saving", "0001.partial", "pulling", "1a2b3c4d.partial", "replaced-1", "deleting", "deleted"):
        shutil.copytree(inventory.checkpoint(100), shelf / f"step-0000000900.{suffix}")
    assert [each.folder.suffix for each in plan(inventory).removals] == [".deleted", ".deleting"]
    for folder in shelf.glob("*900*"):
        age(folder)
    found = plan(inventory)
    assert len(found.removals) == 7
    done = carry_out(found)
    assert (done.entries, done.problems) == (7, ()) and done.size > 0
    assert sorted(path.name for path in shelf.iterdir()) == [f"step-{step:010d}" for step in (100, 200, 300)]


def test_only_what_has_a_verified_whole_copy_and_nothing_else_keeps(inventory: SmallInventory) -> None:
    keep_one = CopiedRetention(keep_last=1)
    assert plan(inventory, keep_one).removals == []
    copied(inventory, *inventory.checkpoints)
    assert [each.folder for each in plan(inventory, keep_one).removals] == [
        inventory.checkpoint(200),
        inventory.checkpoint(100),
    ]
    assert [each.folder for each in plan(inventory).removals] == []
    annotate(inventory.runs / RUN, Annotation("gold", "best", inventory.checkpoints[0].id))
    (inventory.checkpoint(200) / "pinned.json").write_text("{}")
    found = plan(inventory, keep_one)
    assert found.removals == []
    reasons = dict(found.kept)
    assert reasons[inventory.checkpoint(100)] == "gold"
    assert reasons[inventory.checkpoint(200)] == "pinned"


def test_one_that_is_damaged_takes_no_good_ones_place(inventory: SmallInventory) -> None:
    """As in a run's own tidying: the run resumes from the newest that is whole."""
    copied(inventory, *inventory.checkpoints)
    mark_damaged(inventory.checkpoint(300), "a bit is another one")
    found = plan(inventory, CopiedRetention(keep_last=1))
    assert {each.folder for each in found.removals} == {inventory.checkpoint(300), inventory.checkpoint(100)}
    assert [folder for folder, _ in found.kept] == [inventory.checkpoint(200)]
    pin(inventory.checkpoint(300), "to look at")
    assert inventory.checkpoint(300) in dict(plan(inventory, CopiedRetention(keep_last=1)).kept)


def test_the_newest_stays_where_all_have_their_datas_mark(inventory: SmallInventory) -> None:
    """With `data.allow_invalid` the run goes on from it."""
    identity = {"dataset": inventory.dataset.id, "tokenizer": inventory.tokenizer.id}
    parents = (inventory.dataset.id, inventory.tokenizer.id)
    newest = make_checkpoint(inventory.runs, 400, parents=parents, identity=identity)
    copied(inventory, *inventory.checkpoints, newest)
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        invalidate(catalogue, resolve_artefact(inventory.dataset.id, catalogue), "wrong text")
    found = plan(inventory, CopiedRetention(keep_last=1))
    assert "the run resumes" in dict(found.kept)[inventory.checkpoint(400)]


@pytest.mark.parametrize(("verified", "whole"), [(None, True), ("2026-01-01", False)])
def test_a_copy_that_was_not_compared_or_is_a_part_is_none(
    inventory: SmallInventory, verified: str | None, whole: bool
) -> None:
    copied(inventory, *inventory.checkpoints, verified=verified, whole=whole)
    assert plan(inventory, CopiedRetention(keep_last=1)).removals == []


def test_a_removed_checkpoint_keeps_its_place_in_the_lineage(inventory: SmallInventory) -> None:
    copied(inventory, *inventory.checkpoints)
    carry_out(plan(inventory, CopiedRetention(keep_last=1)))
    assert not inventory.checkpoint(100).exists()
    left = inventory.ask("step = 100")
    assert [(each.id, each.whereabouts) for each in left] == [(inventory.checkpoints[0].id, "elsewhere")]
    assert set(left[0].parents) == {inventory.dataset.id, inventory.tokenizer.id}


def test_the_plans_name_is_its_content(inventory: SmallInventory) -> None:
    copied(inventory, *inventory.checkpoints)
    first = plan(inventory, CopiedRetention(keep_last=1))
    assert first.digest == plan(inventory, CopiedRetention(keep_last=1)).digest
    assert first.digest != plan(inventory, CopiedRetention(keep_last=2)).digest


def test_a_checkpoint_that_was_moved_and_linked_loses_its_link_alone(inventory: SmallInventory, tmp_path: Path) -> None:
    copied(inventory, *inventory.checkpoints)
    moved = tmp_path / "scratch" / "moved"
    moved.parent.mkdir()
    inventory.checkpoint(100).rename(moved)
    inventory.checkpoint(100).symlink_to(moved)
    shelf = inventory.checkpoint(100).parent
    (shelf / "step-0000000050.deleting").symlink_to(moved)  # what an earlier version made of such a link
    (shelf / "step-0000000060.deleting").symlink_to(tmp_path / "nowhere")
    os.mkfifo(shelf / "step-0000000070.deleting")
    found = plan(inventory, CopiedRetention(keep_last=2))
    assert [each.size for each in found.removals] == [0, 0, 0, 0]
    assert found.removals[-1].reason.endswith(f"the link goes, its target {moved} stays")
    done = carry_out(found)
    assert (done.entries, done.size, done.problems) == (4, 0, ())
    assert f"its target {moved} stays" in done.told[-1]
    assert len(list(moved.iterdir())) == 7, "six files and their manifest"
    assert sorted(path.name for path in shelf.iterdir()) == ["step-0000000200", "step-0000000300"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_shelf_that_is_no_folder_is_told_and_nothing_behind_it_goes(
    inventory: SmallInventory, tmp_path: Path, kind: str
) -> None:
    copied(inventory, *inventory.checkpoints)
    shelf = inventory.checkpoint(100).parent
    moved = shelf.rename(tmp_path / "moved")
    shutil.copytree(moved / "step-0000000100", moved / "step-0000000900.deleting")
    before = sorted(path for path in moved.rglob("*"))
    shelf.symlink_to(moved) if kind == "link" else shelf.write_text("a file")
    found = plan(inventory, CopiedRetention(keep_last=1))
    assert found.removals == []
    told = {"link": "nothing is deleted through a link", "file": "is a file, where a folder is expected"}[kind]
    assert told in dict(found.kept)[shelf]
    assert sorted(path for path in moved.rglob("*")) == before


def test_one_that_cannot_go_holds_up_no_other(inventory: SmallInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(inventory, *inventory.checkpoints)
    found = plan(inventory, CopiedRetention(keep_last=1))
    monkeypatch.setattr("os.access", lambda path, mode: "200" not in str(path))
    done = carry_out(found)
    assert done.entries == 1 and not inventory.checkpoint(100).exists() and inventory.checkpoint(200).exists()
    (problem,) = done.problems
    assert "could not be removed" in problem and "chmod -R u+w" in problem


def test_notes_that_cannot_be_read_keep_that_runs_checkpoints_alone(inventory: SmallInventory) -> None:
    copied(inventory, *inventory.checkpoints)
    (inventory.runs / RUN / "annotations").mkdir()
    (inventory.runs / RUN / "annotations" / "000001-abc.json").write_text("odd\n")
    found = plan(inventory, CopiedRetention(keep_last=1))
    assert found.removals == [] and inventory.runs / RUN in dict(found.kept)
