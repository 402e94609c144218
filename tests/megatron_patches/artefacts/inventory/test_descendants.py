"""Random lineages of several runs, of which random artefacts were deleted: what came from what is still known."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_patches.artefacts.descent import descent_of_launch, origin_of
from megatron_patches.artefacts.folders import checkpoint_name, replaced_path
from megatron_patches.artefacts.inventory.catalogue import Catalogue, delete_catalogue, open_catalogue
from megatron_patches.artefacts.inventory.invalidation import invalidate, revalidate
from megatron_patches.artefacts.inventory.lineage import ancestors, descendants, faulty_ids, with_id
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import Kind, Manifest, build_manifest, content_id, manifest_bytes

ANY = build_manifest("checkpoint", [], {}, command="made by a test")


@dataclass
class Run:
    """A run in training: launches one after the other, each from a checkpoint of an earlier one."""

    name: str
    launches: int = 0
    saved: list[Manifest] = field(default_factory=list)
    """full ones, and an import"""


class World:
    """Runs under a root; `made_from` is the true lineage, of which no manifest between may be missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: list[Run] = []
        self.made_from: dict[str, str | None] = {}
        self.folders: dict[str, Path] = {}
        self.weights: dict[str, str] = {}
        """ids of weights and of the full checkpoint that they are of"""

    def make(
        self, folder: Path, kind: Kind, facts: Mapping[str, Any], parents: list[str], made_from: str | None
    ) -> Manifest:
        known = {"number": len(self.made_from), **facts}
        identity = content_id(kind, parents, [], known)
        fields = {"id": identity, "kind": kind, "facts": known, "parents": parents}
        return self.put(folder, ANY.model_copy(update=fields), made_from)

    def put(self, folder: Path, manifest: Manifest, made_from: str | None) -> Manifest:
        if folder.exists():
            aside = replaced_path(folder)
            folder.rename(aside)
            self.folders |= {known: aside for known, where in self.folders.items() if where == folder}
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
        self.folders[manifest.id] = folder
        self.made_from[manifest.id] = made_from
        return manifest

    def launch(self, run: Run, source: Manifest | None, saves: int, weights: int, at_zero: bool = False) -> None:
        """A launch that takes its weights from a checkpoint, and saves so many times."""
        run.launches += 1
        step = 0 if source is None or at_zero else int(str(source.facts["step"]))
        descent = descent_of_launch(f"id of {run.name}", run.launches, step, source)
        before = source
        for number in range(saves):
            step += 10
            facts = {"run": run.name, "launch": f"{run.launches:04d}", "step": step, **descent}
            folder = self.root / run.name / "checkpoints" / checkpoint_name(step)
            parent = before.id if before else None
            before = self.make(folder, "checkpoint", facts, [parent] if parent else [], parent)
            run.saved.append(before)
            if weights >> number & 1:
                alone = weights_of(before)
                self.put(folder.with_name(checkpoint_name(step, "weights")), alone, before.id)
                self.weights[alone.id] = before.id

    def act(self, action: int, which: int, saves: int, weights: int) -> None:
        every = [(run, each) for run in self.runs for each in run.saved]
        if not every or action == 0:
            self.runs.append(Run(f"run-{len(self.runs)}"))
            self.launch(self.runs[-1], None, saves, weights)
            return
        run, source = every[which % len(every)]
        if action in (1, 2):  # a resume, or a rollback
            self.launch(run, source, saves, weights)
            return
        child = Run(f"run-{len(self.runs)}")
        self.runs.append(child)
        if action == 3:  # a restart
            self.launch(child, source, saves, weights, at_zero=True)
            return
        exports = self.root / run.name / "exports" / f"export-{len(self.made_from)}"
        facts = {"run": run.name, "step": source.facts["step"], "origin": origin_of(source)}
        export = self.make(exports, "export", facts, [source.id], source.id)
        facts = {"run": child.name, "launch": "import", "step": source.facts["step"], "origin": origin_of(export)}
        folder = self.root / child.name / "checkpoints" / checkpoint_name(int(str(source.facts["step"])))
        child.saved.append(self.make(folder, "checkpoint", facts, [export.id], export.id))
        if action == 4:
            self.launch(child, child.saved[-1], saves, weights)

    def delete(self, each: str) -> None:
        shutil.rmtree(self.folders.pop(each))

    def above(self, each: str) -> set[str]:
        """True ancestors, also those that are gone; of a full one that is gone its weights stand for it."""
        found: set[str] = set()
        above = self.made_from[each]
        while above is not None:
            found.add(above)
            found |= {weights for weights, full in self.weights.items() if full == above} if self.gone(above) else set()
            above = self.made_from[above]
        return found - {each}

    def gone(self, each: str) -> bool:
        return each not in self.folders


def edges(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    return catalogue.rows("SELECT id, parent, told FROM parents JOIN artefacts ON number = child ORDER BY 1, 2")


ACTION = st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 3), st.integers(0, 7))


@example([(0, 0, 1, 0), (4, 0, 0, 0)], [False, True], 1)  # an export that lay between goes
@settings(max_examples=100, deadline=None)
@given(st.lists(ACTION, min_size=1, max_size=9), st.lists(st.booleans(), max_size=40), st.integers(0, 99))
def test_exactly_the_descendants_are_marked_whatever_was_deleted(
    actions: list[tuple[int, int, int, int]], deleted: list[bool], target: int
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        world = World(Path(temporary) / "runs")
        for action in actions:
            world.act(*action)
        data = Path(temporary) / "data"
        with open_catalogue(world.root, data) as catalogue:
            assert len(edges(catalogue)) >= len([each for each in world.made_from.values() if each])
        for each in [known for known, going in zip(world.folders, deleted, strict=False) if going]:
            world.delete(each)
        if not world.folders:
            return
        chosen = sorted(world.folders)[target % len(world.folders)]
        beneath = {each for each in world.folders if chosen in world.above(each)}
        with open_catalogue(world.root, data) as catalogue:
            renewed = edges(catalogue)
            artefact = with_id(catalogue, [chosen])[chosen][0]
            assert {each.id for each in descendants(catalogue, artefact)} == beneath
            known = {each.id for each in ancestors(catalogue, artefact) if each.artefact}
            assert known == world.above(chosen) & world.folders.keys()
            marked = invalidate(catalogue, artefact, "a leak")
            assert {each.id for each in marked.changed} == {chosen, *beneath}
        delete_catalogue(world.root, data)
        with open_catalogue(world.root, data) as catalogue:
            assert edges(catalogue) == renewed, "made anew it is the same as brought up to date"
            assert faulty_ids(catalogue) == {chosen, *beneath}
            (again,) = with_id(catalogue, [chosen])[chosen]
            assert {each.id for each in revalidate(catalogue, again).changed} == {chosen, *beneath}
