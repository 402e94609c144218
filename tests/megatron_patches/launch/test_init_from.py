"""What `init_from` names, what is said of it, and what is refused: before anything is trained, and without torch."""

import json
import re
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from pydantic import JsonValue

from data_tools.run_data import RunData
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.invalidation import invalidate
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest
from megatron_patches.artefacts.marks import mark_damaged
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.checkpoint.starting_point import (
    INITIAL_WEIGHTS,
    InitialWeights,
    TakenRows,
    Vocabularies,
    fit_weights,
    read_initial_weights,
    write_initial_weights,
)
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.launch.checks import launch_problems
from megatron_patches.launch.facts import LaunchFacts, LaunchTarget
from megatron_patches.launch.init_from.resolution import StartingPoint, find_starting_point
from megatron_patches.launch.plan import launch, plan_run, summary
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run, read_run, to_yaml
from tests.small_artefacts import make_artefact
from tests.small_rows import row
from tests.small_training import SmallData

PARENT, CHILD = "tr900a-28K-parent", "tr900b-28K-child"
HERE = LaunchTarget(nodes=None, gpu=False, gpu_models=())


class Runs:
    """The folder of runs, with a parent's checkpoints of steps 10, 20 and 30, of which 20 has the lowest loss."""

    def __init__(self, root: Path, data: SmallData, yaml: Path) -> None:
        self.root, self.data, self.yaml = root, data, yaml
        for step, loss in ((10, 4.0), (20, 3.0), (30, 3.5)):
            self.save(PARENT, step, validation_loss=loss)

    def config(self, name: str = CHILD, *settings: str) -> RunConfig:
        return load_run(self.data.write(self.yaml, name), settings)

    def folder(self, step: int, run: str = PARENT, content: str = "step") -> Path:
        return self.root / run / "checkpoints" / f"{content}-{step:010d}"

    def save(self, run: str, step: int, *settings: str, content: str = "full", **changes: JsonValue) -> Manifest:
        """A checkpoint as the run would save it, its weights zeros."""
        config = self.config(run, *settings)
        data = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
        changes = {"run" if key == "named_run" else key: value for key, value in changes.items()}
        parents = changes.pop("parents", (*data.dataset_ids, data.tokenizer_id))
        facts: dict[str, JsonValue] = {
            "run": run, "launch": "0001", "step": step, "samples": 8 * step, "tokens": 128 * step, "content": content,
            "learning_rate": config.learning_rate(step), "next_learning_rate": config.learning_rate(step + 1),
            "identity": run_identity(config, data.identity_for(config.objective.token_roles), data.tokenizer_id),
        }  # fmt: skip
        files = {"weights-00000.safetensors": weights_file(config), "config.yaml": to_yaml(config).encode()}
        folder = self.folder(step, run, "step" if content == "full" else "weights")
        return make_artefact(folder, "checkpoint", files, {**facts, **changes}, tuple(parents))  # type: ignore[arg-type]

    def find(self, named: str, *settings: str) -> StartingPoint:
        config = self.config(CHILD, *settings)
        return find_starting_point(named, config, RunData(config.data, CHECKOUT, config.lengths, config.place_after))

    def problems(self, *settings: str) -> list[str]:
        return launch_problems(LaunchFacts(read_run(self.data.write(self.yaml, CHILD), settings), HERE))


def weights_file(config: RunConfig) -> bytes:
    """A file of weights that are zeros, in the safetensors format."""
    entries: dict[str, object] = {}
    slices, position = {}, 0
    for each in config.parameters:
        end = position + 4 * prod(each.shape)
        entries[each.name] = {"dtype": "F32", "shape": [prod(each.shape)], "data_offsets": [position, end]}
        box = [[0, size] for size in each.shape]
        slices[each.name] = {"name": each.name, "kind": "weight", "global_shape": each.shape, "box": box, "start": 0}
        position = end
    text = json.dumps({"__metadata__": {"slices": json.dumps(slices)}, **entries}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


@pytest.fixture
def runs(small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    for name in ("runs", "cache", "data"):
        monkeypatch.setenv(f"TRAINYARD_{name.upper()}", str(tmp_path / name))
    return Runs(tmp_path / "runs", small_data, tmp_path / "tr900-tests")


@pytest.mark.parametrize(
    ("named", "step", "why"),
    [
        (f"{PARENT}@10", 10, "the step that is named"),
        ("900a@10", 10, "the step that is named"),
        (PARENT, 30, f"the newest whole checkpoint of {PARENT}"),
        (f"{PARENT}@best", 20, f"the best of {PARENT} on record: validation loss 3"),
        ("ROOT/runs/" + PARENT, 30, f"the newest whole checkpoint of {PARENT}"),
        (f"ROOT/runs/{PARENT}@best", 20, "on record"),
        (f"ROOT/runs/{PARENT}/checkpoints/step-0000000010", 10, "the folder that is named"),
    ],
)
def test_ways_to_name_one(named: str, step: int, why: str, runs: Runs, tmp_path: Path) -> None:
    found = runs.find(named.replace("ROOT", str(tmp_path)))
    assert (found.weights.run, found.weights.step, found.weights.rows) == (PARENT, step, {})
    assert found.weights.id == read_manifest(runs.folder(step) / MANIFEST).id
    assert found.weights.folder == str(runs.folder(step))
    (line,) = found.lines
    assert line.startswith(f"{PARENT}@{step} (") and why in line


def test_gold(runs: Runs) -> None:
    with pytest.raises(Missing, match=r"no checkpoint of .* was promoted; tools/inventory gold"):
        runs.find(f"{PARENT}@gold")
    for step in (10, 30):
        promoted = read_manifest(runs.folder(step) / MANIFEST).id
        annotate(runs.root / PARENT, Annotation("gold", "by hand", promoted))
        if step == 10:
            assert runs.find(f"{PARENT}@gold").weights.step == 10
    with pytest.raises(TrainyardError, match=r"several gold checkpoints \(step-0000000030, step-0000000010\)"):
        runs.find(f"{PARENT}@gold")
    shutil.rmtree(runs.folder(10))
    shutil.rmtree(runs.folder(30))
    with pytest.raises(Missing, match="is not in its checkpoints"):
        runs.find(f"{PARENT}@gold")


def test_weights_alone(runs: Runs) -> None:
    """A full checkpoint goes before them, since it has masters."""
    for step in (20, 40):
        runs.save(PARENT, step, content="weights")
    assert runs.find(f"{PARENT}@20").weights.folder.endswith("step-0000000020")
    named = runs.find(f"{PARENT}@20/weights")
    assert named.weights.folder.endswith("weights-0000000020") and named.lines[0].startswith(f"{PARENT}@20/weights (")
    assert "of which there are weights alone" in runs.find(f"{PARENT}@40").lines[0]
    with pytest.raises(Missing, match=r"of weights alone of step 10 here; nearest: 20, 40"):
        runs.find(f"{PARENT}@10/weights")


def test_what_is_passed_over_is_told(runs: Runs) -> None:
    """What is not whole, and what a later launch left behind; both can be taken, or are refused, by name."""
    mark_damaged(runs.folder(30), "a byte")
    for number, step in ((1, 0), (2, 10)):
        folder = runs.root / PARENT / "launches" / f"{number:04d}"
        folder.mkdir(parents=True)
        record_beginning(folder, Beginning(number, step, None))
    runs.save(PARENT, 15, launch="0002", validation_loss=3.2)
    found = runs.find(PARENT)
    assert found.weights.step == 15
    assert "step-0000000030 was found damaged" in found.lines[1]
    assert "step-0000000020 was left behind by launch 0002" in found.lines[2]
    assert runs.find(f"{PARENT}@best").weights.step == 15
    assert "although" in runs.find(f"{PARENT}@20").lines[0] and "left behind" in runs.find(f"{PARENT}@20").lines[0]


def invalidate_it(name: str) -> None:
    with open_catalogue() as catalogue:
        invalidate(catalogue, resolve_artefact(name, catalogue), "the data was wrong")


def truncate(runs: Runs) -> None:
    path = runs.folder(10) / "weights-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def spoil_header(runs: Runs) -> None:
    path = runs.folder(10) / "weights-00000.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)


def mark_a_grandparent(runs: Runs) -> None:
    """The checkpoint's own manifest says nothing: it was made after its parent was marked."""
    first = make_artefact(runs.root / "tr8-older" / "checkpoints" / "step-0000000005", "checkpoint", {"a": b"1"},
                          {"run": "tr8-older", "step": 5})  # fmt: skip
    second = make_artefact(runs.root / "tr8-old" / "checkpoints" / "step-0000000006", "checkpoint", {"a": b"2"},
                           {"run": "tr8-old", "step": 6}, (first.id,))  # fmt: skip
    invalidate_it("tr8-older@5")
    shutil.rmtree(runs.folder(10))
    runs.save(PARENT, 10, parents=[second.id])  # type: ignore[arg-type]


def of_another_format(runs: Runs) -> None:
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        path = runs.root / "global_step9" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")


def of_no_format(runs: Runs) -> None:
    (runs.root / "something").mkdir()


def known_elsewhere(runs: Runs) -> None:
    shutil.copytree(runs.folder(10), runs.root / PARENT / "elsewhere" / "step-0000000050-01234567")


REFUSED: dict[str, tuple[str, Callable[[Runs], object], type[TrainyardError], str]] = {
    "invalid": (
        f"{PARENT}@10", lambda runs: invalidate_it(f"{PARENT}@10"), Refused,
        "marks this checkpoint invalid since .*the data was wrong.*revalidate",
    ),
    "came from something invalid": (
        f"{PARENT}@10", mark_a_grandparent, TrainyardError,
        r"it came from tr8-older@5 \(checkpoint .*\), which is marked invalid: the data was wrong",
    ),
    "too short": (f"{PARENT}@10", truncate, Damaged, "has .* bytes, its manifest says"),
    "a damaged header": (f"{PARENT}@10", spoil_header, Damaged, "a header of .* does not fit"),
    "found damaged": (f"{PARENT}@10", lambda runs: mark_damaged(runs.folder(10), "a byte"), Damaged, "found damaged"),
    "foreign": (
        "ROOT/global_step9", of_another_format, Refused,
        rf"another program \(deepspeed\).*import-checkpoint .*global_step9 {CHILD} --weights-only, then init_from",
    ),
    "no checkpoint": ("ROOT/something", of_no_format, Refused, "no checkpoint of ours: it has no manifest.json"),
    "a dataset's folder": (
        "ROOT/tokenizer", lambda runs: shutil.copytree(runs.data.folder / "tokenizer", runs.root / "tokenizer"),
        Refused, "its manifest is that of a tokenizer",
    ),
    "no such folder": ("ROOT/a@b/c", of_no_format, Missing, "does not exist; name RUN@STEP"),
    "a step never saved": (f"{PARENT}@24", of_no_format, Missing, "no checkpoint of step 24 here; nearest: 20, 30, 10"),
    "files elsewhere": (f"{PARENT}@50", known_elsewhere, Missing, "tools/sync-to-hub pull tr900a-28K-parent"),
    "no such run": ("tr7-gone@10", of_no_format, Missing, "there is no run tr7-gone"),
    "an ill-formed step": (f"{PARENT}@last", of_no_format, TrainyardError, "before @ stands a run, behind it a step"),
    "a run without checkpoints": (
        PARENT, lambda runs: shutil.rmtree(runs.root / PARENT / "checkpoints"), Missing, "has no whole checkpoint",
    ),
    "a run with weights alone": (
        "tr8-w", lambda runs: runs.save("tr8-w", 3, content="weights"), Missing, "weights alone: tr8-w@3/weights",
    ),
    "nothing validated": ("tr8-v@best", lambda runs: runs.save("tr8-v", 3), Missing, "its whole ones are of steps 3"),
    "itself": (f"{CHILD}@3", lambda runs: runs.save(CHILD, 3), Refused, "it is the run itself"),
    "itself by its path": (
        f"ROOT/{CHILD}/checkpoints/step-0000000003", lambda runs: runs.save(CHILD, 3), Refused, "it is the run itself",
    ),
    "without facts": (
        f"{PARENT}@60", lambda runs: runs.save(PARENT, 60, named_run=None), Damaged,
        "does not say of which run and step",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, runs: Runs) -> None:
    named, spoil, kind, said = REFUSED[case]
    spoil(runs)
    named = named.replace("ROOT", str(runs.root))
    with pytest.raises(kind, match=f"^init_from {re.escape(shortened(named))}: .*{said}"):
        runs.find(named)


def test_a_fault_of_the_data_can_be_allowed(runs: Runs) -> None:
    parent = read_manifest(runs.folder(10) / MANIFEST)
    text = runs.root.parent / "data" / "text"
    text.parent.mkdir()
    shutil.copy(runs.data.folder / "text.manifest.json", text.with_name("text.manifest.json"))
    assert parent.parents[0] == read_manifest(text.with_name("text.manifest.json")).id
    invalidate_it(parent.parents[0])
    with pytest.raises(Refused, match="invalid"):
        runs.find(f"{PARENT}@10")
    assert runs.find(f"{PARENT}@10", "--data.allow_invalid", "true").weights.step == 10


class TestShapesAndTokens:
    def test_another_width_and_depth(self, runs: Runs) -> None:
        said = r"layers.0.mlp.up.linear.weight has shape 64 x 32 there and 96 x 32 here.*, or name another"
        with pytest.raises(Refused, match=said):
            runs.find(PARENT, "--model.ffn_size", "96")
        with pytest.raises(Refused, match=r"more like these; model settings that differ: hidden_size 32 -> 64"):
            runs.find(PARENT, "--model.hidden_size", "64")
        with pytest.raises(Refused, match=r"the model lacks layers.3.attention.output.linear.bias, .* and 7 more"):
            runs.find(PARENT, "--model.layers", "3")
        with pytest.raises(Refused, match=r"it lacks head.logits.linear.weight"):
            runs.find(PARENT, "--model.tied_head", "false")

    def test_settings_that_shapes_do_not_show_are_told(self, runs: Runs) -> None:
        told = runs.find(PARENT, "--model.activation", "relu").lines[-1]
        assert told == "model settings that differ: activation gelu_tanh -> relu"

    def test_a_longer_sequence(self, runs: Runs) -> None:
        found = runs.find(PARENT, "--data.sequence_length", "24")
        assert found.weights.rows == {"positions.weight": TakenRows(16, ((0, 16),))}
        assert found.lines[-1] == "positions.weight: 16 of 16 rows taken, 8 rows drawn by this run"

    def test_fewer_token_ids_than_were_in_use(self, runs: Runs) -> None:
        with pytest.raises(Refused, match=r"has 384 token ids in use there, and 383 here: set model.vocab_size to 384"):
            runs.find(PARENT, "--model.vocab_size", "383")

    def other_tokenizer(self, runs: Runs, edit: Callable[[dict[str, int]], object]) -> None:
        """The parent's checkpoint of step 10 as of a tokenizer with other tokens, which lies where its YAML says."""
        folder = runs.root.parent / "other"
        shutil.copytree(runs.data.folder / "tokenizer", folder, ignore=shutil.ignore_patterns(MANIFEST))
        content = json.loads((folder / "tokenizer.json").read_text())
        edit(content["model"]["vocab"])
        content["model"]["merges"] = []
        (folder / "tokenizer.json").write_text(json.dumps(content))
        identity = dict(read_manifest(runs.folder(10) / MANIFEST).facts["identity"])  # type: ignore[arg-type]
        identity["tokenizer"] = tokenizer_id(find_tokenizer(folder))
        shutil.rmtree(runs.folder(10))
        runs.save(PARENT, 10, identity=identity)
        config = runs.folder(10) / "config.yaml"
        text = config.read_text().replace(f"{runs.data.folder}/tokenizer", str(folder))
        manifest = read_manifest(runs.folder(10) / MANIFEST)
        files = {"weights-00000.safetensors": weights_file(runs.config(PARENT)), "config.yaml": text.encode()}
        make_artefact(runs.folder(10), "checkpoint", files, manifest.facts, tuple(manifest.parents))

    def test_a_tokenizer_with_other_tokens(self, runs: Runs) -> None:
        def swap(tokens: dict[str, int]) -> None:
            first, second = [token for token, number in tokens.items() if number in (300, 301)]
            tokens[first], tokens[second] = tokens[second], tokens[first]

        self.other_tokenizer(runs, swap)
        with pytest.raises(Refused, match=r"does not extend .*: 2 of 384 ids mean something else \(300 is '.*' there"):
            runs.find(f"{PARENT}@10")

    def test_a_tokenizer_that_was_extended(self, runs: Runs) -> None:
        """Two last tokens are new, and one in between had no token before."""

        def without(tokens: dict[str, int]) -> None:
            for token in [token for token, number in tokens.items() if number in (300, 382, 383)]:
                del tokens[token]

        self.other_tokenizer(runs, without)
        found = runs.find(f"{PARENT}@10")
        (table,) = found.weights.rows.values()
        assert table == TakenRows(384, ((0, 300), (301, 382)))
        assert "381 of 384 rows taken, 3 rows drawn by this run" in found.lines[-1]

    def test_a_tokenizer_that_is_not_to_be_found(self, runs: Runs) -> None:
        self.other_tokenizer(runs, lambda tokens: None)
        shutil.rmtree(runs.root.parent / "other")
        with pytest.raises(Missing, match=r"with tokenizer .* not to be found .*Bring that tokenizer.* the same one"):
            runs.find(f"{PARENT}@10")


ROWS = [
    row("table", (400, 8), row_for_each="vocabulary"),
    row("bias", (400,), row_for_each="vocabulary", matrix=False),
    row("positions", (32, 8), row_for_each="positions"),
    row("up", (64, 8)),
]
SAME = {each.name: each.shape for each in ROWS}


@pytest.mark.parametrize(
    ("stored", "before", "now", "fresh", "taken"),
    [
        (SAME, 384, 384, (), {}),
        (SAME, 384, 390, (), dict.fromkeys(("table", "bias"), (400, ((0, 384), (390, 400))))),
        (SAME, 384, 400, (), dict.fromkeys(("table", "bias"), (400, ((0, 384),)))),
        (SAME, 384, 384, (0, 7, 8, 383), dict.fromkeys(("table", "bias"), (400, ((1, 7), (9, 383), (384, 400))))),
        ({**SAME, "table": (384, 8)}, 384, 384, (), {"table": (384, ((0, 384),))}),
        ({**SAME, "table": (512, 8)}, 384, 384, (), {"table": (512, ((0, 400),))}),
        ({**SAME, "table": (512, 8)}, 384, 390, (), {
            "table": (512, ((0, 384), (390, 400))), "bias": (400, ((0, 384), (390, 400)))
        }),
        ({**SAME, "positions": (16, 8)}, 384, 384, (), {"positions": (16, ((0, 16),))}),
        ({**SAME, "positions": (64, 8)}, 384, 384, (), {"positions": (64, ((0, 32),))}),
    ],
)  # fmt: skip
def test_rows_that_are_taken(stored, before: int, now: int, fresh: tuple[int, ...], taken) -> None:  # type: ignore[no-untyped-def]
    fit = fit_weights(ROWS, stored, Vocabularies(before, now, fresh))
    assert fit.problems == []
    assert {name: (each.stored, each.ranges) for name, each in fit.rows.items()} == taken
    assert len(fit.told) == len(taken)


@pytest.mark.parametrize(
    ("stored", "now", "said"),
    [
        ({**SAME, "up": (32, 8)}, 384, "up has shape 32 x 8 there and 64 x 8 here"),
        ({**SAME, "table": (400, 4)}, 384, "table has shape 400 x 4 there"),
        ({**SAME, "positions": (32, 4)}, 384, "positions has shape 32 x 4 there"),
        ({**SAME, "more": (1,)}, 384, "the model lacks more"),
        ({name: shape for name, shape in SAME.items() if name != "up"}, 384, "it lacks up"),
        (SAME, 300, "table has 384 token ids in use there, and 300 here"),
    ],
)
def test_what_does_not_fit(stored: dict[str, tuple[int, ...]], now: int, said: str) -> None:
    assert any(said in problem for problem in fit_weights(ROWS, stored, Vocabularies(384, now)).problems)


class TestALaunch:
    def test_it_says_what_it_takes_and_writes_it_down(self, runs: Runs) -> None:
        path = runs.data.write(runs.yaml, CHILD)
        plan = plan_run(path, [f"--init_from={PARENT}@best", "--data.sequence_length=24"], HERE)
        text = summary(plan)
        assert f"begins from      {PARENT}@20 (" in text and "8 rows drawn by this run" in text
        started = Path(launch(plan)["launch_directory"])
        assert plan.start is not None
        assert read_initial_weights(started) == plan.start.weights

    def test_problems_are_told_beside_others(self, runs: Runs) -> None:
        found = runs.problems(f"--init_from={PARENT}@24", "--data.max_epochs=0.001")
        assert len(found) == 2
        assert "data.max_epochs allows" in found[0] and "nearest: 20, 30, 10" in found[1]

    def test_own_checkpoints_go_before_it(self, runs: Runs) -> None:
        """And what was begun from need not be there any more."""
        began: JsonValue = {
            "named": PARENT,
            "run": PARENT,
            "step": 30,
            "id": read_manifest(runs.folder(30) / MANIFEST).id,
        }
        runs.save(CHILD, 3, initial_weights=began)
        assert runs.problems(f"--init_from={PARENT}@30") == [], "said otherwise, and the same"
        (other,) = runs.problems(f"--init_from={PARENT}@10")
        assert f"init_from is {PARENT}@10 now, which would do nothing: {CHILD} began from {PARENT} (" in other
        (gone,) = runs.problems()
        assert "init_from is null now, which would do nothing" in gone
        shutil.rmtree(runs.root / PARENT)
        assert runs.problems(f"--init_from={PARENT}") == []
        (unknown,) = runs.problems(f"--init_from={PARENT}@10")
        assert "(there is no run" in unknown and "would do nothing" in unknown

    def test_a_run_that_began_otherwise(self, runs: Runs) -> None:
        runs.save(CHILD, 3)
        assert runs.problems() == []
        (problem,) = runs.problems(f"--init_from={PARENT}")
        assert "did not begin from another run's weights. Remove the key" in problem

    def test_its_own_weights_are_not_work_that_is_left_aside(self, runs: Runs) -> None:
        for step in (0, 5):
            runs.save(CHILD, step, content="weights")
        assert "weights-0000000000" in runs.problems()[0] and "--init_from" in runs.problems()[0]
        (problem,) = runs.problems(f"--init_from={CHILD}@0/weights")
        assert "weights-0000000005" in problem and "weights-0000000000" not in problem
        shutil.rmtree(runs.folder(5, CHILD, "weights"))
        assert runs.problems(f"--init_from={CHILD}@0/weights") == []


def test_the_record_of_a_launch(tmp_path: Path) -> None:
    assert read_initial_weights(tmp_path) is None
    written = InitialWeights("r@best", "r", 3, "0" * 64, "/x", {"table": TakenRows(5, ((0, 2), (3, 5)))})
    write_initial_weights(tmp_path, written)
    assert read_initial_weights(tmp_path) == written
    whole = json.loads((tmp_path / INITIAL_WEIGHTS).read_text())
    for key, odd in (("step", -1), ("rows", []), ("rows", {"table": {"stored": 5, "ranges": [[2, 9]]}}), ("id", None)):
        (tmp_path / INITIAL_WEIGHTS).write_text(json.dumps({**whole, key: odd}))
        with pytest.raises(Damaged, match="does not say what the run begins from; start the run again"):
            read_initial_weights(tmp_path)
