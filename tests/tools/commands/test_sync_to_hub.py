"""Copies of runs, as they are typed: what moves, what stays, what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.storage.file import FolderStore
from megatron_patches.artefacts.storage.store import Entry, TransientFailure
from megatron_patches.errors import TrainyardError
from megatron_patches.events.writing import EventWriter
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tests.small_training import SmallData, train_launch
from tools.commands.inventory import command_line as inventory
from tools.commands.sync_to_hub import command_line as sync_to_hub
from tools.run_files.checkpoint_reference import find_checkpoints

OTHER = "tr900b-28K-other"
WEIGHTS_FILES = 4
"""of a checkpoint of small_artefacts: two ranks' weights, config.yaml, trainer.json"""

pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture
def run(places: Path) -> Path:
    """The directory of a run with checkpoints of steps 100, 200, 300 and 400."""
    for step in (100, 200, 300, 400):
        make_checkpoint(places / "runs", step)
    return places / "runs" / RUN


@pytest.fixture
def bucket(places: Path) -> str:
    return f"file://{places}/bucket"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(sync_to_hub.app, list(arguments), catch_exceptions=True)


def sync(*arguments: str, code: int = 0) -> dict[str, str]:
    """What happened to each artefact, the last word on each."""
    done = call(*arguments, "--json")
    assert done.exit_code == code, (done.output, done.exception)
    return {line["name"]: line["word"] for line in json.loads(done.stdout)}


def refused(*arguments: str) -> str:
    done = call(*arguments)
    assert isinstance(done.exception, TrainyardError), done.output
    return str(done.exception)


def inventory_call(*arguments: str) -> str:
    done = CliRunner().invoke(inventory.app, list(arguments), catch_exceptions=True)
    assert done.exit_code == 0, done.exception
    return done.stdout


def there(bucket: str, run: str = RUN) -> list[str]:
    """Names of the artefacts at a location."""
    root = Path(bucket.removeprefix("file://")) / run
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("manifest.json"))


def step(number: int, part: str = "step") -> str:
    return f"checkpoints/{part}-{number:010d}"


def damage(path: Path) -> None:
    """Other bytes, the same size."""
    path.write_bytes(b"x" * path.stat().st_size)


def end_run(run: Path, last: int) -> None:
    (run / "launches" / "0001").mkdir(parents=True, exist_ok=True)
    writer = EventWriter(run / "events", "0001", "trainer")
    writer.write("step", step=last, tokens=128 * last, seconds=1.0)
    writer.write("end", step=last, outcome="finished")
    writer.close()


def test_a_dry_run_moves_nothing_and_says_what_would_move(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket, "--steps", "100")
    (run / "logs").mkdir()
    (run / "logs" / "0001.log").write_text("said\n")
    before = {path: path.stat().st_mtime_ns for path in run.parents[1].rglob("*")}
    found = sync(RUN, "--to", bucket, "--dry-run", "--what", "checkpoints,logs", "--delete-local-after-verify")
    would = {step(number): "would be sent" for number in (200, 300, 400)}
    assert found == {step(100): "present", **would, "logs": "would be compared"}
    assert {path: path.stat().st_mtime_ns for path in run.parents[1].rglob("*")} == before
    done = call(RUN, "--to", bucket, "--dry-run", "--steps", "200")
    assert re.search(r"would be sent +6 +8\.\d+ kB", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--steps", "200"], [200]),
        (["--steps", "200:300"], [200, 300]),
        (["--steps", "300:"], [300, 400]),
        (["--steps", "100,400"], [100, 400]),
        (["--every", "200"], [200, 400]),
        (["--every", "200", "--steps", ":300"], [200]),
        (["--pattern", "step-*3*"], [300]),
        (["--pattern", "checkpoints/*2*"], [200]),
        (["--pattern", "weights-*"], []),
    ],
)
def test_a_part_of_the_checkpoints(run: Path, bucket: str, arguments: list[str], numbers: list[int]) -> None:
    assert list(sync(RUN, "--to", bucket, *arguments)) == [step(number) for number in numbers]
    assert there(bucket) == [step(number) for number in numbers]


def test_weights_alone(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket, "--weights-only", "--steps", "200")
    folder = Path(bucket.removeprefix("file://")) / RUN / step(200, "weights")
    assert len(list(folder.iterdir())) == WEIGHTS_FILES + 1
    manifest = read_manifest(folder / "manifest.json")
    assert manifest.facts["content"] == "weights"
    assert manifest.parents[0] == read_manifest(run / step(200) / "manifest.json").id


@pytest.mark.parametrize("arguments", [["--weights-only"], ["--all"]])
def test_weights_that_the_run_saved_by_themselves_are_what_is_copied(
    places: Path, bucket: str, arguments: list[str]
) -> None:
    """`weights_every_steps` saves a step's weights beside its whole checkpoint: two artefacts, one place."""
    full = make_checkpoint(places / "runs", 300)
    files = {"weights-00000.safetensors": b"saved by themselves"}
    facts = {"run": RUN, "step": 300, "content": "weights"}
    own = make_artefact(places / "runs" / RUN / step(300, "weights"), "checkpoint", files, facts)
    assert own.id != full.id
    if arguments == ["--all"]:
        write_yaml(places, {"to": bucket, "full_every": 1000, "weights_every": 300})
    assert sync(RUN, *arguments, *([] if arguments == ["--all"] else ["--to", bucket])) == {
        step(300, "weights"): "sent"
    }
    copy = Path(bucket.removeprefix("file://")) / RUN / step(300, "weights") / "manifest.json"
    assert read_manifest(copy).id == own.id


def test_other_parts_of_a_run(run: Path, bucket: str) -> None:
    for name in ("logs/0001.log", "events/0001-trainer.jsonl", "launches/0001/config.yaml", "tensorboard/events.1",
                 "evals/table.json", "launches/0001/heartbeat"):  # fmt: skip
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    make_artefact(run / "evals" / "lambada", "evaluation", {"results.json": b"{}"}, {"run": RUN})
    make_artefact(run / "exports" / "hf", "export", {"model.safetensors": b"1"}, {"run": RUN})
    what = "logs,tensorboard,evals,exports"
    found = sync(RUN, "--to", bucket, "--what", what)
    names = ["evals/lambada", "exports/hf", "logs", "events", "launches", "tensorboard", "evals"]
    assert found == dict.fromkeys(names, "sent")
    copy = Path(bucket.removeprefix("file://")) / RUN
    assert (copy / "tensorboard" / "events.1").read_text() == "tensorboard/events.1"
    assert not (copy / "checkpoints").exists()
    assert not (copy / "launches/0001/heartbeat").exists(), "it changes in place: pulled twice it would differ"
    assert not (copy / "evals" / "index.json").read_text().count("lambada"), "what has a manifest is not copied twice"
    assert set(sync(RUN, "--to", bucket, "--what", what).values()) == {"present"}
    into = run.parents[1] / "elsewhere"
    sync("pull", RUN, "--from", bucket, "--what", what, "--into", str(into))
    for name in ("logs/0001.log", "evals/table.json", "evals/lambada/results.json", "exports/hf/model.safetensors"):
        assert (into / RUN / name).read_bytes() == (run / name).read_bytes()


def write_yaml(places: Path, *locations: dict[str, Any], run: str = RUN) -> None:
    """A run under train/ whose copies are to lie at these locations."""
    path = SmallData(places / "data").write(places / "train" / "tr900-tests", run)
    path.write_text(f"{path.read_text()}storage: {{locations: {json.dumps(locations)}}}\n")


def test_everything_that_the_yamls_ask_for(run: Path, places: Path, bucket: str) -> None:
    (run / step(300) / "pinned.json").write_text('{"because": "before a loss spike"}')
    (run / "logs").mkdir()
    (run / "logs" / "0001.log").write_text("said\n")
    make_checkpoint(places / "runs", 550, run=OTHER)
    make_checkpoint(places / "runs", 100, run="tr900c-28K-asks-for-nothing")
    write_yaml(
        places,
        {"to": bucket, "full_every": 200, "weights_every": 100},
        {"to": f"file://{places}/logs", "what": ["logs"]},
    )
    write_yaml(places, {"to": f"file://{places}/all/{{run}}/here"}, run=OTHER)
    write_yaml(places, run="tr900c-28K-asks-for-nothing")
    assert set(sync("--all").values()) == {"sent"}
    # 200 and 400 by their step, 300 because it is pinned
    assert there(bucket) == [step(200), step(300), step(400), step(100, "weights")]
    assert (places / "logs" / RUN / "logs" / "0001.log").read_text() == "said\n"
    assert there(f"file://{places}/all", OTHER) == [f"here/{step(550)}"]
    again = json.loads(call("--all", "--json").stdout)
    assert [(line["word"], line["size"]) for line in again] == [("present", 0)] * 6


def test_the_last_checkpoint_of_a_finished_run_is_kept_whole(run: Path, places: Path, bucket: str) -> None:
    write_yaml(places, {"to": bucket, "full_every": 1000})
    assert sync(RUN, "--all") == {}
    end_run(run, 400)
    assert sync(RUN, "--all") == {step(400): "sent"}


def test_one_run_that_is_wrong_does_not_hold_up_the_others(run: Path, places: Path, bucket: str) -> None:
    write_yaml(places, {"to": bucket, "full_every": 400})
    make_checkpoint(places / "runs", 100, run=OTHER)
    write_yaml(places, {"to": "ftp://somewhere"}, run=OTHER)
    done = call("--all")
    assert done.exit_code == 1
    assert "ftp://somewhere" in done.stderr
    assert there(bucket) == [step(400)]


def test_watching_brings_what_appears_until_the_run_has_finished(
    run: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(seconds: float) -> None:
        assert seconds == 7
        seen.append(there(bucket)[-1])
        make_checkpoint(run.parent, 400 + 100 * len(seen))
        if len(seen) == 2:
            end_run(run, 600)

    seen: list[str] = []
    monkeypatch.setattr(sync_to_hub.time, "sleep", meanwhile)
    assert call(RUN, "--to", bucket, "--watch", "7").exit_code == 0
    assert seen == [step(400), step(500)]
    assert there(bucket)[-1] == step(600), "what appeared with the end is brought too"


def test_what_is_being_written_is_not_touched(run: Path, bucket: str) -> None:
    (run / step(400)).rename(run / "checkpoints" / "step-0000000400.0001.partial")
    (run / step(300) / "manifest.json").unlink()
    (run / step(200)).rename(run / "checkpoints" / "step-0000000200.deleted")
    assert list(sync(RUN, "--to", bucket)) == [step(100)]
    assert there(bucket) == [step(100)]


def test_old_checkpoints_go_once_their_copies_were_read(run: Path, bucket: str) -> None:
    for number in (500, 600):
        make_checkpoint(run.parent, number)
    (run / step(200) / "pinned.json").write_text('{"because": "figure 3"}')
    annotate(run, Annotation("gold", "best", read_manifest(run / step(300) / "manifest.json").id))
    found = sync(RUN, "--to", bucket, "--delete-local-after-verify")
    newest = "stays here: one of the newest 2, from which the run resumes"
    assert found == {
        step(100): "removed here", step(200): "stays here: pinned", step(300): "stays here: gold",
        step(400): "removed here", step(500): newest, step(600): newest,
    }  # fmt: skip
    assert sorted(path.name[-3:] for path in (run / "checkpoints").iterdir()) == ["200", "300", "500", "600"]
    assert len(list((run / "elsewhere").iterdir())) == 2
    assert len(there(bucket)) == 6
    assert step(100) not in sync(RUN, "--to", bucket), "what was removed here is not missed there"
    sync("pull", RUN, "--from", bucket, "--steps", "100")
    assert (run / step(100) / "manifest.json").is_file()


def test_a_checkpoint_that_was_moved_and_linked_loses_its_link_alone(run: Path, places: Path, bucket: str) -> None:
    moved = places / "scratch"
    (run / step(100)).rename(moved)
    (run / step(100)).symlink_to(moved)
    words = sync(RUN, "--to", bucket, "--delete-local-after-verify")
    assert words[step(100)] == f"removed here; step-0000000100 was a link; its target {moved} stays"
    assert not (run / step(100)).is_symlink() and (moved / "manifest.json").is_file()


def test_nothing_is_removed_where_checkpoints_is_a_link(run: Path, places: Path, bucket: str) -> None:
    moved = (run / "checkpoints").rename(places / "scratch")
    (run / "checkpoints").symlink_to(moved)
    words = sync(RUN, "--to", bucket, "--delete-local-after-verify")
    assert "nothing is deleted through a link" in words[step(100)]
    assert len(list(moved.iterdir())) == 4


def test_weights_alone_are_no_reason_to_remove_a_whole_checkpoint(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket, "--weights-only", "--delete-local-after-verify")
    assert len(list((run / "checkpoints").iterdir())) == 4


def test_a_damaged_copy_keeps_the_one_here_and_is_made_good_by_the_next_sync(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket)
    copy = Path(bucket.removeprefix("file://")) / RUN / step(100) / "optimizer-00001.safetensors"
    damage(copy)
    done = call(RUN, "--to", bucket, "--delete-local-after-verify")
    assert done.exit_code == 1
    assert re.search(r"step-0000000100: failed: its copy is damaged, and it stays here: .* has sha256", done.stderr)
    assert sorted(path.name[-3:] for path in (run / "checkpoints").iterdir()) == ["100", "300", "400"]
    assert sync(RUN, "--to", bucket, "--delete-local-after-verify")[step(100)] == "removed here"
    sync("pull", RUN, "--from", bucket, "--steps", "100")


def test_replace_sends_what_is_damaged_there_anew(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket)
    copy = Path(bucket.removeprefix("file://")) / RUN / step(100) / "weights-00001.safetensors"
    damage(copy)
    assert sync(RUN, "--to", bucket, "--steps", "100") == {step(100): "present"}, "sizes alone are compared"
    assert sync(RUN, "--to", bucket, "--steps", "100", "--replace") == {step(100): "sent"}
    assert copy.read_bytes() == (run / step(100) / copy.name).read_bytes()


def test_what_replaces_a_packed_copy_is_not_hidden_by_the_old_tar(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket, "--steps", "100", "--tar-below", "1M")
    copy = Path(bucket.removeprefix("file://")) / RUN / step(100)
    assert (copy / "packed.tar").is_file()
    (run / step(100) / "manifest.json").unlink()
    made = make_checkpoint(run.parent, 100, size=3000)
    assert sync(RUN, "--to", bucket, "--steps", "100", "--replace") == {step(100): "sent"}
    assert sync(RUN, "--to", bucket, "--steps", "100", "--delete-local-after-verify")[step(100)] == "removed here"
    sync("pull", RUN, "--from", bucket, "--steps", "100")
    assert read_manifest(run / step(100) / "manifest.json").id == made.id


def test_a_damaged_tar_is_made_good_by_a_sync_without_one(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket, "--steps", "100", "--tar-below", "1M")
    damage(Path(bucket.removeprefix("file://")) / RUN / step(100) / "packed.tar")
    assert call(RUN, "--to", bucket, "--steps", "100", "--delete-local-after-verify").exit_code == 1
    assert sync(RUN, "--to", bucket, "--steps", "100", "--delete-local-after-verify")[step(100)] == "removed here"
    sync("pull", RUN, "--from", bucket, "--steps", "100")


@pytest.mark.parametrize("damaged", ["bucket", "second"])
def test_what_is_damaged_at_one_of_two_locations_stays(run: Path, places: Path, bucket: str, damaged: str) -> None:
    write_yaml(places, {"to": bucket}, {"to": f"file://{places}/second"})
    sync("--all")
    damage(places / damaged / RUN / step(100) / "optimizer-00001.safetensors")
    assert call("--all", "--delete-local-after-verify").exit_code == 1
    assert sorted(path.name[-3:] for path in (run / "checkpoints").iterdir()) == ["100", "300", "400"]
    sync("--all", "--delete-local-after-verify")
    assert len(list((run / "checkpoints").iterdir())) == 2


def test_what_goes_to_two_locations_stays_until_it_is_at_both(run: Path, places: Path, bucket: str) -> None:
    second = f"file://{places}/second"
    write_yaml(places, {"to": bucket}, {"to": second})
    (places / "second" / RUN).mkdir(parents=True)
    (places / "second" / RUN / "checkpoints").write_text("a file where a folder should be")
    sync("--all", "--tries", "1", "--delete-local-after-verify", code=1)
    assert (len(there(bucket)), len(list((run / "checkpoints").iterdir()))) == (4, 4)
    (places / "second" / RUN / "checkpoints").unlink()
    sync("--all", "--delete-local-after-verify")
    assert there(second) == there(bucket)
    assert len(list((run / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("weights", [False, True])
def test_what_was_marked_invalid_is_refused_by_a_pull_unless_allowed(
    run: Path, places: Path, bucket: str, weights: bool
) -> None:
    arguments = ["--weights-only"] if weights else []
    name = step(200, "weights" if weights else "step")
    sync(RUN, "--to", bucket, *arguments)
    inventory_call("invalidate", f"{RUN}@200", "--because", "the test set leaked")
    assert sync(RUN, "--to", bucket, "--dry-run", *arguments)[name] == "status would be renewed"
    assert sync(RUN, "--to", bucket, *arguments)[name] == "status renewed"
    pull = ["pull", RUN, "--from", bucket, "--steps", "200:300", "--into", str(places / "back"), *arguments]
    done = call(*pull)
    assert done.exit_code == 1
    assert "the test set leaked. Pull another one, or this one with --allow-invalid" in done.stderr
    kind = "weights" if weights else "step"
    assert sorted(path.name for path in (places / "back" / RUN / "checkpoints").iterdir()) == [f"{kind}-0000000300"]
    assert sync(*pull, "--allow-invalid")[name] == "fetched"
    back = places / "back" / RUN / name / "manifest.json"
    assert read_manifest(back).status.reason == "the test set leaked"
    inventory_call("revalidate", f"{RUN}@200")
    sync(RUN, "--to", bucket, *arguments)
    assert call(*pull).exit_code == 0


def test_what_was_removed_here_is_marked_there_too(run: Path, places: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket, "--delete-local-after-verify")
    inventory_call("invalidate", f"{RUN}@100", "--because", "a leak")
    assert sync(RUN, "--to", bucket)[step(100)] == "status renewed"
    assert step(100) not in sync(RUN, "--to", bucket)
    assert "a leak" in call("pull", RUN, "--from", bucket, "--steps", "100").stderr


def test_a_pull_takes_no_mark_back_that_was_made_here(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket)
    inventory_call("invalidate", f"{RUN}@200", "--because", "a leak")
    assert sync("pull", RUN, "--from", bucket, "--steps", "200") == {step(200): "present"}
    assert read_manifest(run / step(200) / "manifest.json").status.reason == "a leak"


def test_a_sync_takes_no_mark_back_that_was_made_elsewhere(
    run: Path, places: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two people have the checkpoint. One marks it and syncs; the other, who does not know, syncs too, then pulls."""
    sync(RUN, "--to", bucket)
    sync("pull", RUN, "--from", bucket, "--into", str(places / "theirs"))
    inventory_call("invalidate", f"{RUN}@200", "--because", "a leak")
    sync(RUN, "--to", bucket)
    monkeypatch.setenv("TRAINYARD_RUNS", str(places / "theirs"))
    sync(RUN, "--to", bucket)
    assert "a leak" in call("pull", RUN, "--from", bucket, "--steps", "200", "--into", str(places / "third")).stderr
    sync("pull", RUN, "--from", bucket, "--steps", "200", "--allow-invalid")
    theirs = places / "theirs" / RUN / step(200) / "manifest.json"
    assert read_manifest(theirs).status.reason == "a leak"
    monkeypatch.setenv("TRAINYARD_RUNS", str(places / "runs"))
    inventory_call("revalidate", f"{RUN}@200")
    sync(RUN, "--to", bucket)
    assert (
        sync("pull", RUN, "--from", bucket, "--steps", "200", "--into", str(places / "third"))[step(200)] == "fetched"
    )


def test_what_is_invalid_here_is_not_sent(run: Path, bucket: str) -> None:
    inventory_call("invalidate", f"{RUN}@200", "--because", "a leak")
    sync(RUN, "--to", bucket)
    assert there(bucket) == [step(100), step(300), step(400)]


def test_a_damaged_checkpoint_does_not_hold_up_the_others(run: Path, bucket: str) -> None:
    damage(run / step(200) / "weights-00000.safetensors")
    (run / step(300) / "manifest.json").write_text("{}")
    done = call(RUN, "--to", bucket)
    assert done.exit_code == 1
    assert "not what its manifest says" in done.stderr
    assert f"{step(300)}/manifest.json" in done.stderr
    assert there(bucket) == [step(100), step(400)]


def test_a_dry_pull_fetches_nothing(run: Path, places: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket)
    arguments = ["pull", RUN, "--from", bucket, "--dry-run", "--steps", "300:", "--into", str(places / "back")]
    assert sync(*arguments) == dict.fromkeys([step(300), step(400)], "would be fetched")
    assert not (places / "back").exists()


def test_a_location_that_does_not_answer_is_named(run: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: FolderStore, folder: str) -> dict[str, Entry]:
        raise TransientFailure("the line is dead")

    monkeypatch.setattr(FolderStore, "entries", fails)
    assert "the line is dead, at each of 1 tries" in refused("pull", RUN, "--from", bucket, "--tries", "1")
    assert "the line is dead, at each of 1 tries" in call(RUN, "--to", bucket, "--tries", "1").stderr
    assert "the line is dead, at each of 1 tries" in call(RUN, "--to", bucket, "--tries", "1", "--dry-run").stderr


TO = ["--to", "file:///nowhere"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([RUN, *TO, "--bandwidth", "fast"], "--bandwidth fast: give a size such as 500k, 50M or 2G"),
        ([RUN, *TO, "--bandwidth", "0"], "--bandwidth 0: give a size"),
        ([RUN, *TO, "--bandwidth", "-5M"], "--bandwidth -5M: give a size"),
        ([RUN, *TO, "--tar-below", "64x"], "--tar-below 64x: give a size"),
        ([RUN, *TO, "--steps", "many"], "--steps many: give a number, or a range"),
        (["pull", RUN, "--from", "file:///nowhere", "--steps", "1:2:3"], "--steps 1:2:3: give a number, or a range"),
        ([RUN, *TO, "--what", "checkpoints,photos"], "photos is no part of a run; there are checkpoints, logs"),
        ([RUN, *TO, "--what", ","], "--what names nothing; there are checkpoints, logs"),
        ([RUN], "say where to"),
        ([RUN, *TO, "--all"], "say where to"),
        ([*TO], "name the run that is to be brought to file:///nowhere"),
        ([RUN, "--to", "nowhere"], "nowhere"),
        (["tr900", *TO], f"tr900 may be any of {RUN}, {OTHER}; say which"),
        (["tr900a-28K-smal1", *TO], f"there is no run tr900a-28K-smal1; nearest: {RUN}"),
        (["tr900b", "--all"], f"{OTHER} names no storage.locations in its YAML; give --to ADDRESS"),
        (["pull", RUN, "--from", "file:///nowhere"], "holds nothing of what was asked for; it is empty, or does not"),
    ],
)
def test_what_is_refused(run: Path, places: Path, arguments: list[str], said: str) -> None:
    make_checkpoint(places / "runs", 100, run=OTHER)
    assert said in refused(*arguments)


def test_a_run_is_pulled_by_its_full_name_and_the_location_says_what_it_holds(run: Path, bucket: str) -> None:
    sync(RUN, "--to", bucket)
    assert "it is empty, or does not exist" in refused("pull", "tr900", "--from", bucket)
    assert f"it holds {step(100)}, " in refused("pull", RUN, "--from", bucket, "--steps", "5")


@pytest.mark.parametrize("arguments", [["--parallel", "0"], ["--tries", "0"], ["--every", "0"], ["--watch", "-1"]])
def test_numbers_without_sense(run: Path, arguments: list[str]) -> None:
    assert call(RUN, *TO, *arguments).exit_code == 2


@pytest.mark.parametrize("prepare", [lambda runs: None, lambda runs: (runs / OTHER).mkdir(parents=True)])
def test_a_run_that_was_never_made(places: Path, bucket: str, prepare: Callable[[Path], None]) -> None:
    prepare(places / "runs")
    assert f"there is no run {RUN}" in refused(RUN, "--to", bucket)
    assert f"there is no run {RUN}" in refused(RUN, "--all")


def load_and_compare(folder: str, original: str) -> tuple[int, list[str], str]:
    """On a rank: a folder is loaded as `tools/generate` does; how many parameters it has, which of them differ from the
    tensors that another folder's files hold, and a continuation.
    """
    import torch

    from megatron_patches.generation.continuation import Wanted, continue_texts
    from megatron_patches.generation.loaded_model import load_model
    from megatron_patches.generation.sampling import Sampling
    from megatron_patches.models.build import canonical_parameters
    from tests.whole_state import whole_tensors

    def complain(problem: str) -> None:
        raise AssertionError(problem)

    loaded = load_model([Path(folder)], passed_over=complain)
    stored = {name: values for (name, kind), values in whole_tensors(Path(original)).items() if kind == "weight"}
    parameters = canonical_parameters(loaded.ranks._model._model)
    differing = [
        name
        for name, parameter in parameters.items()  # flat: a fused matrix is a box of more dimensions in a checkpoint
        if not torch.equal(parameter.detach().cpu().view(-1), stored.pop(name).view(-1))
    ]
    ((_, written),) = continue_texts(loaded, ["ab"], Wanted(8, Sampling(0.0)))
    return len(parameters), [*differing, *stored], written.prompt + written.text


def test_a_real_runs_weights_are_found_pulled_into_an_empty_place_and_loaded(
    small_data: SmallData, places: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = start_launch(small_data.run(places))
    run_on_ranks(train_launch, 1, str(launch.directory))
    original = launch.run.path / step(8)
    assert sync(RUN, "--to", bucket) == dict.fromkeys([step(3), step(6), step(8)], "sent")

    found = json.loads(inventory_call("find", "small", "--steps", "8", "--json"))
    assert [each["name"] for each in found["artefacts"]] == [f"{RUN}@8"]
    copies = json.loads(inventory_call("where", f"{RUN}@8", "--json"))
    assert {copy["location"] for copy in copies} == {f"file://{original}", f"{bucket}/{RUN}/{step(8)}"}

    monkeypatch.setenv("TRAINYARD_RUNS", str(places / "empty"))
    sync("pull", RUN, "--from", bucket, "--weights-only", "--steps", "8")
    (pulled,) = find_checkpoints(f"{RUN}@8")
    assert pulled == places / "empty" / RUN / step(8, "weights")
    assert not list(pulled.glob("optimizer-*"))
    ((number, differing, text),) = run_on_ranks(load_and_compare, 1, str(pulled), str(original))
    assert number > 20
    assert differing == []
    assert text.startswith("ab")
