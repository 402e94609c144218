"""The daily questions, as they are typed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder
from megatron_patches.artefacts.marks import is_damaged, verification_of
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.events.writing import EventWriter
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tools.commands.inventory import command_line as inventory
from tools.commands.sync_to_hub import command_line as sync_to_hub
from tools.pages.render import render, stale_files
from tools.run_views.state import derive_state, read_queue

ROTARY = "tr4c-1B3-rotary-oscar"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, data and cache of this test alone."""
    for name in ("RUNS", "DATA", "CACHE"):
        monkeypatch.setenv(f"TRAINYARD_{name}", str(tmp_path / name.lower()))
    return tmp_path


def call(app: Any, *arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def ask(*arguments: str) -> Any:
    done = call(inventory.app, *arguments, "--json")
    assert done.exit_code in (0, 1), done.exception
    return json.loads(done.stdout)


def refused(app: Any, *arguments: str) -> str:
    done = call(app, *arguments)
    assert isinstance(done.exception, TrainyardError), done.output
    return str(done.exception)


def test_a_newcomer_finds_every_copy_and_pulls_the_weights_of_one_step(tmp_path: Path) -> None:
    for step in (1000, 2000):
        make_checkpoint(tmp_path / "runs", step, run=ROTARY)
    address = f"file://{tmp_path}/bucket"
    assert call(sync_to_hub.app, ROTARY, "--to", address).exit_code == 0
    found = ask("find", "rotary")
    assert ROTARY in {run["name"] for run in found["runs"]}
    assert [each["step"] for each in found["artefacts"] if each["run"] == ROTARY] == [1000, 2000]
    copies = ask("where", ROTARY)
    assert len(copies) == 4
    assert {copy["verified"] is not None for copy in copies if "bucket" in copy["location"]} == {True}
    empty = tmp_path / "empty"
    arguments = ["pull", ROTARY, "--from", address, "--steps", "2000", "--weights-only", "--into", str(empty)]
    done = call(sync_to_hub.app, *arguments)
    assert done.exit_code == 0, done.output
    folder = empty / ROTARY / "checkpoints" / "weights-0000002000"
    source = tmp_path / "runs" / ROTARY / "checkpoints" / "step-0000002000"
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in source.iterdir() if not path.name.startswith("optimizer-")}
    assert (folder / "weights-00000.safetensors").read_bytes() == (source / "weights-00000.safetensors").read_bytes()


def test_where_looks_at_copies_and_remembers_what_it_found(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs", 100)
    call(sync_to_hub.app, RUN, "--to", f"file://{tmp_path}/bucket")
    remote = tmp_path / "bucket" / RUN / "checkpoints" / "step-0000000100"
    (remote / "config.yaml").unlink()
    done = call(inventory.app, "where", f"{RUN}@100", "--check")
    assert done.exit_code == 1
    assert "config.yaml is missing" in " ".join(done.output.split())
    assert any(copy["problem"] for copy in ask("where", RUN))


def test_invalidate_and_back_on_the_command_line(tmp_path: Path) -> None:
    dataset = make_artefact(tmp_path / "data" / "text", "dataset", {"text.bin": b"1"}, {})
    make_checkpoint(tmp_path / "runs", 100, parents=(dataset.id,))
    assert refused(inventory.app, "invalidate", dataset.id[:8], "--because", "").startswith("say why")
    assert len(ask("invalidate", dataset.id[:8], "--because", "a leak")["changed"]) == 2
    assert {each["name"] for each in ask("find", "--status", "invalid")["artefacts"]} == {"text", f"{RUN}@100"}
    assert "is invalid" in refused(inventory.app, "gold", f"{RUN}@100", "--because", "best")
    assert len(ask("revalidate", dataset.id[:8])["changed"]) == 2


def test_an_invalid_parent_is_refused_unless_allowed(tmp_path: Path) -> None:
    dataset = make_artefact(tmp_path / "data" / "text", "dataset", {"text.bin": b"1"}, {})
    call(inventory.app, "invalidate", dataset.id[:8], "--because", "a leak")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "step-5-val_ppl-3.0.ckpt").write_bytes(b"1")
    arguments = ["adopt", str(tmp_path / "foreign"), "--run", "t5", "--parent", dataset.id[:8]]
    assert "cannot be a parent: a leak" in refused(inventory.app, *arguments)
    assert call(inventory.app, *arguments, "--allow-invalid").exit_code == 0
    assert ask("show", "t5@5")["ancestors"][0]["id"] == dataset.id


def test_gold_notes_and_deprecation(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs", 100)
    call(inventory.app, "gold", f"{RUN}@100", "--because", "lowest loss", "--metric", "mmlu=0.2687")
    call(inventory.app, "note", RUN, "look at step 90", "--tag", "good", "--deprecate", "replaced by another")
    run = ask("show", RUN)
    assert (run["state"]["word"], run["tags"]) == ("deprecated", ["good"])
    assert run["gold"] == [f"{RUN}@100 mmlu 0.2687"]
    assert "look at step 90" in run["notes"][0]
    assert [each["name"] for each in ask("find", "--tag", "good", "--steps", "100")["artefacts"]] == [f"{RUN}@100"]
    call(inventory.app, "gold", f"{RUN}@100", "--undo")
    call(inventory.app, "note", RUN, "--restore")
    run = ask("show", RUN)
    assert (run["state"]["word"], run["gold"]) == ("ready", [])
    assert "say why" in refused(inventory.app, "gold", f"{RUN}@100")
    assert "edit it there" in refused(inventory.app, "note", "tr13", "hello")


def test_gold_is_found_by_what_it_was_chosen_by(tmp_path: Path) -> None:
    for step in (100, 200):
        make_checkpoint(tmp_path / "runs", step, metrics={"mmlu": 0.25} if step == 200 else {})
    call(inventory.app, "gold", f"{RUN}@100", "--because", "best of all", "--metric", "mmlu=0.2687")
    found = ask("find", "--metric", "mmlu>0.26")["artefacts"]
    assert [(each["name"], each["metrics"]) for each in found] == [(f"{RUN}@100", {"mmlu": 0.2687})]
    assert len(ask("find", "--metric", "mmlu>0.2")["artefacts"]) == 2
    assert ask("find", "--metric", "mmlu<0.2")["artefacts"] == []
    assert ask("show", RUN)["best"] == {"mmlu": 0.2687}
    call(inventory.app, "gold", f"{RUN}@100", "--undo")
    assert ask("find", "--metric", "mmlu>0.26")["artefacts"] == []
    assert ask("show", RUN)["best"] == {"mmlu": 0.25}


def test_the_best_of_a_run_is_its_best_validation(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs", 100, validation_loss=3.5)
    writer = EventWriter(tmp_path / "runs" / RUN / "events", "0001", "rank0")
    writer.write("start", step=0)
    for step, loss in ((50, 3.0), (100, 3.5)):
        writer.write("validation", step=step, loss=loss)
        writer.write("validation", step=step, loss=1.0, source="of another source, an easier one")
    assert ask("show", RUN)["best"] == {"validation_loss": 3.0}
    rolled_back = EventWriter(tmp_path / "runs" / RUN / "events", "0002", "rank0")
    rolled_back.write("start", step=40)
    assert ask("show", RUN)["best"] == {"validation_loss": 3.5}


def test_without_events_a_run_has_the_steps_and_tokens_of_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (100, 200):
        make_checkpoint(tmp_path / "runs", step)
    state = ask("show", RUN)["state"]
    assert (state["step"], state["tokens"]) == (200, 128 * 200)


def test_a_checkpoint_that_was_read_back_is_verified_everywhere(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs", 100)
    folder = tmp_path / "runs" / RUN / "checkpoints" / "step-0000000100"
    assert [copy["verified"] for copy in ask("where", f"{RUN}@100")] == [None]
    assert call(inventory.app, "verify", f"{RUN}@100").exit_code == 0
    mark = verification_of(folder)
    assert mark is not None
    assert [copy["verified"] for copy in ask("where", f"{RUN}@100")] == [mark.date]
    (folder / "trainer.json").write_text("{ }")
    assert call(inventory.app, "verify", f"{RUN}@100").exit_code == 1
    assert is_damaged(folder)
    assert "trainer.json" in ask("where", f"{RUN}@100")[0]["problem"]


def test_gc_plans_first_and_does_what_was_read(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        make_checkpoint(tmp_path / "runs", step)
    call(sync_to_hub.app, RUN, "--to", f"file://{tmp_path}/bucket")
    plan = ask("gc", "--copied")
    assert [Path(each["folder"]).name for each in plan["removals"]] == ["step-0000000100"]
    assert (tmp_path / "runs" / RUN / "checkpoints" / "step-0000000100").is_dir()
    assert "something changed" in refused(inventory.app, "gc", "--copied", "--do", "00000000")
    assert call(inventory.app, "gc", "--copied", "--do", plan["plan"]).exit_code == 0
    assert not (tmp_path / "runs" / RUN / "checkpoints" / "step-0000000100").exists()
    assert ask("where", f"{RUN}@100")[0]["location"].startswith("file://")


def test_a_published_run_says_what_was_declared() -> None:
    (place,) = ask("where", "tr9c-1B3-swiglu-pile")
    assert (place["verified"], place["location"]) == (None, "six_ALL_CCFRSTORE/checkpoints/tr9b-1B3-swiglu-pile")
    found = ask("show", "lr_001_OPTIMIZED_clean_restart")
    assert found["declared"]
    assert "MMLU (English, zero-shot) 0.2687" in found["gold"][0]
    assert any("[truncated]" in each["location"] for each in ask("locations"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["where", "tr6b"], "say which|there is no|nothing is known"),
        (["show", "tr0z-none"], "nothing is known"),
        (["note", "tr6b-350M", "x"], "tr6b-350M-prefix-lm"),
        (["note", "tr99-none", "x"], "there is no run"),
        (["find", "--metric", "low"], "give a name"),
        (["find", "--status", "odd"], "valid or invalid"),
    ],
)
def test_wrong_questions(arguments: list[str], said: str) -> None:
    import re

    assert re.search(said, refused(inventory.app, *arguments))


def launch(tmp_path: Path, *events: tuple[str, dict[str, Any]]) -> Path:
    folder = tmp_path / "runs" / RUN
    (folder / "launches" / "0001").mkdir(parents=True)
    writer = EventWriter(folder / "events", "0001", "trainer")
    for kind, facts in events:
        writer.write(kind, **facts)
    writer.close()
    return folder


START, STEP = ("start", {"step": 0}), ("step", {"step": 7, "tokens": 70, "seconds": 1.0})


@pytest.mark.parametrize(
    ("events", "later", "queue", "word"),
    [
        ([], 0, {}, "running"),
        ([START, STEP], 0, {}, "running"),
        ([START, STEP], 3600, {}, "stale"),
        ([START, STEP], -7200, {}, "running"),
        ([START, STEP], 3600, {RUN: "RUNNING"}, "running"),
        ([START, STEP], 3600, {RUN: "PENDING"}, "queued"),
        ([START, STEP, ("end", {"step": 7, "outcome": "finished"})], 0, {}, "finished"),
        ([START, STEP, ("end", {"step": 7, "outcome": "stopped"})], 0, {}, "stopped"),
        ([START, STEP, ("failure", {"step": 7, "error": "ValueError", "text": ""})], 0, {}, "failed"),
        ([START, STEP, ("failure", {"step": 7, "error": "ValueError", "text": "no"})], 0, {}, "failed"),
    ],
)
def test_the_state_follows_from_the_record(
    tmp_path: Path, events: list[tuple[str, dict[str, Any]]], later: float, queue: dict[str, str], word: str
) -> None:
    import time

    from megatron_patches.artefacts.annotations import Standing

    state = derive_state(launch(tmp_path, *events), Standing(), queue, time.time() + later)
    assert state.word == word
    if events and later < 0:
        assert "clock" in state.detail
    if events:
        assert state.step == 7


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ("{steps: 10}", "at step 7 of 10"),
        ("{steps: 10, extend_to: [20, 30], extend_by: []}", "at step 7 of 30"),
        ("{steps: 10, extend_to: [], extend_by: [5, 6]}", "at step 7 of 21"),
        ("{steps: null, samples: 80, extend_to: [160]}", "at step 7"),
        ("{steps: 10, extend_by: [odd]}", "at step 7"),
        ("{steps: 10, extend_to: odd}", "at step 7"),
    ],
)
def test_a_stopped_run_says_how_far_it_is(tmp_path: Path, training: str, told: str) -> None:
    from megatron_patches.artefacts.annotations import Standing

    run = launch(tmp_path, START, ("end", {"step": 7, "outcome": "stopped"}))
    (next((run / "launches").iterdir()) / "config.yaml").write_text(f"training: {training}\n")
    assert derive_state(run, Standing(), {}).detail == told


def test_a_run_that_was_never_launched_is_ready(tmp_path: Path) -> None:
    from megatron_patches.artefacts.annotations import Standing

    assert derive_state(tmp_path / "none", Standing(), {}).word == "ready"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A checkout with one family, and the published entries."""
    copy = tmp_path / "checkout"
    for name in ("tr0-stdlib-gpt", "tr20-125M-domain-tokens"):
        shutil.copytree(CHECKOUT / "train" / name, copy / "train" / name)
    shutil.copy(CHECKOUT / "train" / "README.md", copy / "train")
    shutil.copytree(CHECKOUT / "published", copy / "published")
    render(copy)
    return copy


def test_the_repositorys_pages_are_fresh() -> None:
    assert stale_files(CHECKOUT) == []


def test_every_published_run_is_on_the_page_with_its_marks(pages: Path) -> None:
    page = (pages / "checkpoints.md").read_text()
    assert page.count("(**truncated**, unverified") == 2
    for text in (
        "tr13",
        "gs://bigscience-backups/tr1-13B/",
        "_gold**: MMLU (English, zero-shot) 0.2687",
        "still running",
    ):
        assert text in page


def test_notes_of_people_survive_and_a_stale_page_is_named(pages: Path) -> None:
    page = pages / "checkpoints.md"
    mark = "<!-- notes on BigScience: what stands here stays -->\n"
    page.write_text(page.read_text().replace(mark, f"{mark}\nAsked for tr4's path on Monday.\n"))
    assert stale_files(pages) == []
    entries = pages / "published" / "bigscience.yaml"
    entries.write_text(entries.read_text().replace("name: tr13\n", "name: tr14\n"))
    assert stale_files(pages) == ["checkpoints.md: stale; `tools/inventory render` makes it anew"]
    assert render(pages) == [page]
    assert "Asked for tr4's path on Monday." in page.read_text()
    entries.unlink()
    render(pages)
    assert "Asked for tr4's path on Monday." in page.read_text()
    assert "which is no longer listed" in page.read_text()


def test_a_list_shows_ones_own_runs_unless_asked(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs", 100)
    make_checkpoint(tmp_path / "runs", 100, run=ROTARY)
    own, published, every = (
        {run["name"] for run in ask("list", *options)} for options in ([], ["--published"], ["--all"])
    )
    assert {RUN, ROTARY, "tr0a-4M-stdlib"} <= own
    assert "tr9c-1B3-swiglu-pile" in published and not own & published
    assert own | published == every
    assert "published by others: --all shows them" in call(inventory.app, "list").stderr


def test_a_list_leaves_rehearsals_out_unless_asked(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs", 100)
    make_checkpoint(tmp_path / "runs", 100, run=f"{RUN}-rehearsal-2")
    own, rehearsals, every = (
        {run["name"]: run["rehearsal_of"] for run in ask("list", *options)}
        for options in ([], ["--rehearsals"], ["--all"])
    )
    assert own[RUN] is None and rehearsals == {f"{RUN}-rehearsal-2": RUN} and not own.keys() & rehearsals.keys()
    assert {**own, **rehearsals}.items() <= every.items()
    assert "1 rehearsal more: --rehearsals or --all shows it" in call(inventory.app, "list").stderr
    assert "rehearsal" not in call(inventory.app, "list", "--all").stderr


def test_a_job_that_rehearses_a_run_says_nothing_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job has the name that its script gives it."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    asked = (
        "RUNNING tr1a /c/tr1a.slurm --rehearse 20\nPENDING tr1a /c/tr1a.slurm\n"
        "RUNNING tr2a /c/tr2a.slurm --rehearse=9\nRUNNING tr3a /c/tr3a.slurm --eval-only all"
    )
    squeue.write_text(f"#!/bin/sh\n[ \"$2\" = '--format=%T %j %o' ] && printf '%s\\n' '{asked}'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    assert read_queue() == {"tr1a": "PENDING"}


def test_a_stopped_run_says_how_it_is_continued(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tr0a-4M-stdlib"
    (folder / "launches" / "0001").mkdir(parents=True)
    (folder / "launches" / "0001" / "config.yaml").write_text("training:\n  steps: 520\n")
    EventWriter(folder / "events", "0001", "rank0").write("end", step=476, outcome="stopped")
    state = ask("show", "tr0a-4M-stdlib")["state"]
    assert (state["word"], state["detail"].partition(";")[0]) == ("stopped", "at step 476 of 520")
    assert state["detail"].endswith("train/tr0-stdlib-gpt/tr0a-4M-stdlib.slurm")
    assert "at step 476 of 520" in call(inventory.app, "list", "tr0a").stdout


def test_what_others_wrote_is_text_on_the_pages(pages: Path) -> None:
    entries = pages / "published" / "bigscience.yaml"
    hostile = "'<script>x</script> | [y](javascript:z) `w` <!-- end of notes -->'"
    entries.write_text(entries.read_text().replace("notes: multi-task", f"reason: {hostile}\n    notes: multi-task", 1))
    render(pages)
    entries.write_text(entries.read_text().replace("notes: multi-task", "state: deprecated\n    notes: multi-task", 1))
    render(pages)
    page = (pages / "checkpoints.md").read_text()
    assert r"&lt;script&gt;x&lt;/script&gt; \| \[y\](javascript:z) \`w\` &lt;!-- end of notes --&gt;" in page
    assert stale_files(pages) == []


def test_other_programs_are_answered_by_runs_too() -> None:
    from tools.commands.runs.command_line import app

    found = json.loads(call(app, "diff", "tr3d-1B3-more-warmup", "tr3m-1B3-pile", "--json").stdout)
    assert (found["first"], found["second"]) == ("tr3m-1B3-pile", "tr3d-1B3-more-warmup")
    assert {"data.path", "training.samples"} <= {each["key"] for each in found["differences"]}
    assert set(found["differences"][0]) == {"key", "first", "second"}
    linted = call(app, "lint", "tr3d-1B3-more-warmup", "--json")
    assert (linted.exit_code, json.loads(linted.stdout)) == (0, {"runs": 1, "problems": []})


@pytest.mark.parametrize("arguments", [
    ["note", RUN, "lies at s3://KEY:SEC/RET@bucket/p", "--tag", "good"], ["note", RUN, "--deprecate", "KEY:SEC/RET@b"],
    ["gold", f"{RUN}@100", "--because", "see https://host/x?sig=SEC/RET"],
    ["invalidate", f"{RUN}@100", "--because", "of s3://KEY:SEC/RET@bucket"],
])  # fmt: skip
def test_no_credentials_are_written_down(tmp_path: Path, arguments: list[str]) -> None:
    make_checkpoint(tmp_path / "runs", 100)
    said = refused(inventory.app, *arguments)
    assert "seems to hold credentials" in said and "SEC" not in said
    assert not (tmp_path / "runs" / RUN / "annotations").exists()
    assert not any(b"RET" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "arguments", [["where", RUN], ["where", RUN, "--json"], ["locations"], ["list"], ["show", RUN]]
)
def test_no_credentials_of_an_earlier_record_are_shown(tmp_path: Path, arguments: list[str]) -> None:
    made = make_checkpoint(tmp_path / "runs", 100)
    address = "s3://KEY:SEC/RET@bucket/runs"
    copy = Copy(made.id, made.id, "checkpoints/step-0000000100", address, 5, True, None, "as sent")
    CopyRecorder(tmp_path / "runs" / RUN).record(copy)
    done = call(inventory.app, *arguments)
    assert done.exit_code == 0 and "s3://..." in done.stdout
    assert "SEC" not in done.output and "RET@" not in done.output
