"""Views over many runs go on where one cannot be read, and say which."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from megatron_patches.artefacts.annotations import read_standing
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from tests.odd_runs import FAULTS, HARMLESS, ODD_NAMES, add_event, make_odd_runs, make_run
from tools.commands.checkpoint.command_line import app as checkpoint
from tools.commands.dataset.command_line import app as dataset
from tools.commands.inventory.command_line import app as inventory
from tools.pages.snapshot import read_snapshot, renew_snapshot
from tools.run_views.views import Inventory

GOOD = {"tr900a-28K-first": 3.25, "tr900b-28K-middle": 2.5, "zz-last": 4.0}
SECONDS = 300


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("odd")
    make_odd_runs(folder / "runs", GOOD)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RUNS", "DATA", "CACHE"):
            patch.setenv(f"TRAINYARD_{name}", str(folder / name.lower()))
        yield folder


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A view that waits for a pipe is a failure, not a test that never ends."""

    def end(_: int, __: FrameType | None) -> None:
        raise AssertionError("a view hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def call(app: Any, *arguments: str) -> Result:
    """What a command says; it may end by an error of ours alone."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, (SystemExit, TrainyardError)):
        raise done.exception
    assert not set(done.output) & {"\x1b", "\x07", "\u202e"}, arguments
    return done


def test_a_list_shows_every_good_run_and_names_every_odd_one(odd: Path) -> None:
    done = call(inventory, "list", "--json")
    assert done.exit_code == 1
    found = {run["name"]: run for run in json.loads(done.stdout)}
    for name, loss in GOOD.items():
        assert (found[name]["state"]["word"], found[name]["best"]) == ("finished", {"validation_loss": loss})
        assert found[name]["problems"] == []
    for name in HARMLESS:
        assert found[name]["problems"] == [], name
    for name in ("fine-failure-empty", "fine-failure-damaged", "fine-control"):
        assert found[name]["state"]["word"] == "failed"
    unread = call(inventory, "verify", "--sizes-only").stderr
    for name in FAULTS:
        assert found[name]["problems"] or f"/{name}/" in unread, name
    for raw in ODD_NAMES:
        name = printable(Path(str(raw, "utf-8", "surrogateescape")))
        assert f"/{name} is left out" in unread


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"], ["list", "--all"], ["list", "--published"], ["list", "zz"], ["find"], ["find", "tr900"],
        ["find", "--metric", "validation_loss<9"], ["find", "--steps", "1:99999999999999999999999"],
        ["locations"], ["rebuild"], ["where", "zz-last"], ["show", "zz-last"], ["show", "zz-last@20"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_view_over_many_stops_at_one(odd: Path, arguments: list[str]) -> None:
    done = call(inventory, *arguments)
    assert done.exit_code in (0, 1) and not isinstance(done.exception, TrainyardError)
    if arguments[0] in ("where", "show") or arguments == ["list", "zz"]:
        assert "zz-last" in done.stdout
    if arguments == ["list"]:
        assert set(GOOD) <= {line.split(" ", 1)[0] for line in done.stdout.splitlines()}
        shown = call(inventory, "show", "fine-note").stdout.splitlines()
        assert any("[bold]" in line for line in shown) and not any(line.startswith("  gold") for line in shown)


@pytest.mark.parametrize("name", [*FAULTS, *HARMLESS])
def test_a_view_of_an_odd_run_is_an_answer_or_an_error_that_names_it(odd: Path, name: str) -> None:
    for app, verb in ((inventory, "show"), (inventory, "where"), (checkpoint, "list"), (dataset, "proof")):
        done = call(app, verb, name)
        said = str(done.exception) if isinstance(done.exception, TrainyardError) else done.output
        assert said and (verb == "list" or name in said), verb


def test_every_checkpoint_is_verified_though_one_cannot_be_read(odd: Path) -> None:
    done = call(checkpoint, "verify", "fine-long-path", "--all", "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert "File name too long" in found["step-0000000030"]["problems"][0] and found["step-0000000020"]["whole"]


def test_the_pages_are_drawn_of_what_can_be_read(odd: Path, tmp_path: Path) -> None:
    for family, run in (("tr900-x", "tr900a-28K-first"), ("tr1-x", "note-damaged")):
        (tmp_path / "train" / family).mkdir(parents=True)
        (tmp_path / "train" / family / f"{run}.yaml").write_text("why: tests\n")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "damaged.yaml").write_text("runs: [")
    with open_catalogue() as catalogue:
        problems = renew_snapshot(Inventory(tmp_path, odd / "runs", catalogue))
    assert any("/note-damaged/" in problem for problem in problems)
    assert any("damaged.yaml" in problem for problem in problems)
    assert read_snapshot(tmp_path)["tr900a-28K-first"].best == "validation loss 3.25 at step 20"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["kind", "time", "step", "loss", "tokens", "seconds", "outcome", "text", "word", "by", "value"])
LINES = st.builds(
    lambda known, more: json.dumps({**known, **more}),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["start", "step", "validation", "end", "failure", "note", "gold"]) | JSON}
    ),
    st.dictionaries(NAMES, JSON | st.just("2026-11-28T00:00:00+00:00") | st.integers(0, 50), max_size=6),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES | st.text(max_size=20).filter(lambda text: "\n" not in text), max_size=4))
def test_whatever_stands_in_its_files_a_run_is_shown(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("RUNS", "DATA", "CACHE"):
        monkeypatch.setenv(f"TRAINYARD_{name}", str(folder / name.lower()))
    run = make_run(folder / "runs", "tr900a-28K-any")
    for number, line in enumerate(lines):
        add_event(run, line)
        (run / "annotations").mkdir(exist_ok=True)
        (run / "annotations" / f"{number:06d}-abcdef.json").write_bytes(line.encode("utf-8", "surrogatepass"))
    with open_catalogue() as catalogue:
        record = Inventory(folder, folder / "runs", catalogue).record("tr900a-28K-any")
    assert record.best is not None
    json.dumps(record.as_json())


def test_a_list_asks_once_which_runs_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of each run, 1,000 runs took 1,000 times a reading of all their names."""
    for number in range(5):
        make_run(tmp_path / "runs", f"run{number}")
    with open_catalogue(tmp_path / "runs", tmp_path / "data") as catalogue:
        asked: list[str] = []
        names = catalogue.run_names()

        def answer() -> list[str]:
            asked.append("")
            return names

        monkeypatch.setattr(catalogue, "run_names", answer)
        views = Inventory(tmp_path, tmp_path / "runs", catalogue)
        assert [name for name in views.names() if views.is_own(name)] == names
        assert len(asked) == 1


def test_a_promotion_of_nothing_restores_no_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "old")
    (folder / "annotations").mkdir()
    for number, word in enumerate(("deprecated", "gold", "not-gold"), start=1):
        text = json.dumps({"word": word, "text": word})
        (folder / "annotations" / f"{number:06d}-abcdef.json").write_text(text)
    deprecated = read_standing(folder).deprecated
    assert deprecated is not None and deprecated.text == "deprecated"
