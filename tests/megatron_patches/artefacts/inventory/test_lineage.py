"""A fault spreads from parent to child, is taken back, and is never passed on unseen."""

import json
from pathlib import Path

import pytest

from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.invalidation import Marked, invalidate, revalidate
from megatron_patches.artefacts.inventory.lineage import ancestors, descendants, faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_artefact, resolve_run
from megatron_patches.artefacts.inventory.search import Wanted, find
from megatron_patches.artefacts.inventory.verification import verify_artefact
from megatron_patches.artefacts.manifest import read_manifest, refuse_invalid
from megatron_patches.errors import TrainyardError
from tests.megatron_patches.artefacts.inventory.conftest import SmallInventory
from tests.small_artefacts import RUN, make_artefact, make_checkpoint


def mark(inventory: SmallInventory, name: str, because: str = "a leak") -> Marked:
    with open_catalogue(inventory.runs, inventory.data, thorough=True) as catalogue:
        return invalidate(catalogue, resolve_artefact(name, catalogue), because)


def unmark(inventory: SmallInventory, name: str) -> Marked:
    with open_catalogue(inventory.runs, inventory.data, thorough=True) as catalogue:
        return revalidate(catalogue, resolve_artefact(name, catalogue))


def states(inventory: SmallInventory) -> dict[str, str]:
    return {each.name: each.state for each in inventory.ask("kind = 'checkpoint'")}


def test_up_and_down(inventory: SmallInventory) -> None:
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        top = resolve_artefact("tokenizer", catalogue)
        down = descendants(catalogue, top)
        assert [each.distance for each in down] == [1] * 4
        up = ancestors(catalogue, resolve_artefact(f"{RUN}@100", catalogue))
        assert {each.id for each in up} == {inventory.dataset.id, inventory.tokenizer.id}


def test_all_descendants_are_marked_with_the_reason_and_ids_stay(inventory: SmallInventory) -> None:
    marked = mark(inventory, "tokenizer", "its merges leak the test set")
    assert len(marked.changed) == 5
    assert set(states(inventory).values()) == {"invalid"}
    path = inventory.checkpoint(200) / "manifest.json"
    manifest = read_manifest(path)
    assert manifest.id == inventory.checkpoints[1].id
    with pytest.raises(TrainyardError, match="its merges leak the test set"):
        refuse_invalid(manifest, path, "allow it")


def test_it_is_taken_back(inventory: SmallInventory) -> None:
    mark(inventory, "tokenizer")
    assert len(unmark(inventory, "tokenizer").changed) == 5
    assert set(states(inventory).values()) == {"valid"}


def test_a_reason_of_its_own_stays(inventory: SmallInventory) -> None:
    mark(inventory, f"{RUN}@100", "loss spike")
    assert any("loss spike" in line for line in mark(inventory, "tokenizer").unchanged)
    unmark(inventory, "tokenizer")
    assert states(inventory) == {f"{RUN}@100": "invalid", f"{RUN}@200": "valid", f"{RUN}@300": "valid"}


def test_with_two_faulty_ancestors_it_stays_invalid_until_both_are_well(inventory: SmallInventory) -> None:
    mark(inventory, inventory.dataset.id)
    mark(inventory, "tokenizer")
    unmark(inventory, "tokenizer")
    assert set(states(inventory).values()) == {"invalid"}
    unmark(inventory, inventory.dataset.id)
    assert set(states(inventory).values()) == {"valid"}


def test_it_cannot_be_taken_back_at_a_descendant(inventory: SmallInventory) -> None:
    mark(inventory, "tokenizer")
    with pytest.raises(TrainyardError, match=inventory.tokenizer.id[:12]):
        unmark(inventory, f"{RUN}@100")


def test_a_child_made_after_the_marking_is_known_as_faulty(inventory: SmallInventory) -> None:
    mark(inventory, inventory.dataset.id)
    late = make_checkpoint(inventory.runs, 400, parents=(inventory.dataset.id,))
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        assert late.id in faulty_ids(catalogue)
        found, _ = find(catalogue, Wanted(status="valid", kinds=["checkpoint"]), 10)
        assert found == []
        verdict = verify_artefact(catalogue, resolve_artefact(f"{RUN}@400", catalogue))
        assert len(verdict.problems) == 1
        assert "which is invalid: a leak" in verdict.problems[0]


def test_without_a_reason_nothing_is_marked(inventory: SmallInventory) -> None:
    with pytest.raises(TrainyardError, match="say why"):
        mark(inventory, "tokenizer", " ")


def test_an_edited_manifest_stops_it_before_anything_changes(inventory: SmallInventory) -> None:
    path = inventory.checkpoint(300) / "manifest.json"
    content = json.loads(path.read_text())
    content["facts"]["step"] = 301
    path.write_text(json.dumps(content))
    with pytest.raises(TrainyardError, match="changed after it was written"):
        mark(inventory, "tokenizer")
    assert set(states(inventory).values()) == {"valid"}


def test_a_cycle_is_named(inventory: SmallInventory) -> None:
    path = inventory.data / "mine" / "tokenizer" / "manifest.json"
    content = json.loads(path.read_text())
    content["parents"] = [inventory.checkpoints[0].id]
    path.write_text(json.dumps(content))
    with open_catalogue(inventory.runs, inventory.data, thorough=True) as catalogue:
        for relatives in (ancestors, descendants):
            with pytest.raises(TrainyardError, match=r"own (ancestors|descendants).*edited"):
                relatives(catalogue, resolve_artefact(f"{RUN}@100", catalogue))
        verdict = verify_artefact(catalogue, resolve_artefact(f"{RUN}@100", catalogue))
        assert len(verdict.problems) == 1
    with pytest.raises(TrainyardError, match="edited"):
        mark(inventory, "tokenizer")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "weights-00000.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "weights-00000.safetensors").write_bytes(b"x"), "its manifest says"),
        (lambda folder: (folder / "weights-00000.safetensors").write_bytes(b"x" * 2000), "sha256"),
    ],
)
def test_verify_finds_damage(inventory: SmallInventory, break_it: object, said: str) -> None:
    break_it(inventory.checkpoint(100))  # type: ignore[operator]
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        bad = verify_artefact(catalogue, resolve_artefact(f"{RUN}@100", catalogue))
        good = verify_artefact(catalogue, resolve_artefact(f"{RUN}@200", catalogue))
    assert [said in problem for problem in bad.problems] == [True]
    assert good.problems == []


def test_names(inventory: SmallInventory) -> None:
    assert inventory.find(f"{RUN}@200").id == inventory.checkpoints[1].id
    assert inventory.find("tr900@200").id == inventory.checkpoints[1].id
    assert inventory.find(inventory.dataset.id[:8]).id == inventory.dataset.id
    assert inventory.find(str(inventory.checkpoint(300))).id == inventory.checkpoints[2].id
    make_artefact(inventory.runs / RUN / "checkpoints" / "weights-0000000200", "checkpoint", {"w": b"1"},
                  {"run": RUN, "step": 200, "content": "weights"})  # fmt: skip
    assert inventory.find(f"{RUN}@200").content == "full"
    assert inventory.find(f"{RUN}@200/weights").content == "weights"


def test_names_that_are_wrong_offer_others(inventory: SmallInventory, tmp_path: Path) -> None:
    make_checkpoint(inventory.runs, 100, run="tr900b-28K-other")
    with pytest.raises(TrainyardError, match=f"{RUN}, tr900b-28K-other; say which"):
        inventory.find("tr900@100")
    with pytest.raises(TrainyardError, match=r"nearest: (200, 300|300, 200), 100"):
        inventory.find(f"{RUN}@250")
    with pytest.raises(TrainyardError, match="nearest: tr900"):
        resolve_run("tr90a-28K-smal", [RUN, "tr1-13B"])
    with pytest.raises(TrainyardError, match="tools/inventory find"):
        inventory.find("nothing-like-it")


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        (Wanted(steps="200:"), [200, 300]),
        (Wanted(steps=":100"), [100]),
        (Wanted(tokens="20K:30K"), [200]),
        (Wanted(metrics=["validation_loss<3.75"]), [300]),
        (Wanted(metrics=["validation_loss>=3.8", "validation_loss<3.85"]), [200]),
        (Wanted(layout="tp2 zero1"), [100, 200, 300]),
        (Wanted(layout="tp4"), []),
        (Wanted(terms=["0000000300"]), [300]),
        (Wanted(since="2999-01-01"), []),
        (Wanted(location="s3://"), []),
        (Wanted(location="here"), [100, 200, 300]),
        (Wanted(runs=["another"]), []),
    ],
)
def test_find(inventory: SmallInventory, wanted: Wanted, steps: list[int]) -> None:
    with open_catalogue(inventory.runs, inventory.data) as catalogue:
        found, count = find(catalogue, wanted, 10)
    assert [each.step for each in found if each.kind == "checkpoint"] == steps
    assert count == len(found)


@pytest.mark.parametrize("wanted", [Wanted(steps="many"), Wanted(metrics=["loss"]), Wanted(tokens="1X")])
def test_a_condition_that_is_not_formed_as_it_must_be(inventory: SmallInventory, wanted: Wanted) -> None:
    with open_catalogue(inventory.runs, inventory.data) as catalogue, pytest.raises(TrainyardError, match="give a"):
        find(catalogue, wanted, 10)
