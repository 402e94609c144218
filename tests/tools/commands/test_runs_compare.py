"""`tools/runs compare`: what it prints, writes and refuses."""

import csv
import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from tests.command_line import Call, verb
from tests.tools.recorded_runs import CHECKOUT, make_run, record_launch
from tools.commands.runs import command_line as runs
from tools.commands.runs.compared_runs import ComparedRun
from tools.commands.runs.comparison import parse_point
from tools.commands.runs.comparison_tables import settings_tables

YAML = CHECKOUT / "train" / "tr3-1B3-baseline" / "tr3d-1B3-more-warmup.yaml"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: the second has twice the batch and another seed, and was stopped half-way."""
    root = tmp_path_factory.mktemp("runs")
    record_launch(
        make_run(root, "tr9a-4M-small", "--training.steps", "400"), "0001", 0,
        {step: 2 + 6 * math.exp(-step / 8) for step in range(1, 41)},
        [(step, "validation", 2.5 + 6 * math.exp(-step / 8)) for step in range(10, 41, 10)],
    )  # fmt: skip
    changes = ["--training.global_batch_size", "16", "--training.seed", "7", "--optimizer.learning_rate", "4e-3"]
    record_launch(
        make_run(root, "tr9b-4M-large", *changes), "0001", 0,
        {step: 2 + 6 * math.exp(-step / 4) for step in range(1, 13)},
        [(step, "validation", 2.5 + 6 * math.exp(-step / 4)) for step in (5, 10)],
        batch=2, outcome="stopped",
    )  # fmt: skip
    return root


@pytest.fixture
def call(recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`tools/runs` in this process, with these runs, in a pipe of 80 columns."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(recorded))
    monkeypatch.setenv("COLUMNS", "80")
    return verb(runs, monkeypatch, capsys)


GOLDEN = """\
   run            state
a  tr9a-4M-small  finished (step 40)
b  tr9b-4M-large  stopped (at step 12)

run               steps  tokens   hours  s/step  tok/s     lr
a tr9a-4M-small  40/400     40K  0.0281       2    500   0.04
b tr9b-4M-large  12/300     24K  0.0125       2     1K  0.012

run              training  best val.  at step  last val.  at step
a tr9a-4M-small    2.0492     2.5404       40     2.5404       40
b tr9b-4M-large    2.4518     2.9925       10     2.9925       10
training: mean loss of the last 4 steps
val.: loss on the validation group validation

At 24,000 tokens, where b is; all others have come at least so far:
run              training loss     to a  validation loss     to a
a tr9a-4M-small         2.3639                    2.9925
b tr9b-4M-large         2.4518  +0.0879           2.9925  +0.0000
training loss: mean of the last 4 steps until there, or of all
validation loss: on the group validation, at 20,000 tokens
seeds differ: a part of each difference is chance

training loss over tokens; values outside the range are left out
5.212          a
4.968
4.724            *
 4.48              a
4.236                *
3.992                 a
3.748                   *
3.504                     a
 3.26                       * a
3.016                           *a
2.772                              * a
2.528                                  * a* a
2.284                                         * a * aa a a
 2.04                                                      a a aa a a a a aa a a
      0                                                                      40K

setting                     a      b
training.steps              400    300
training.global_batch_size  8      16
training.seed               1234   7
optimizer.learning_rate     0.002  0.004
"""


def test_the_answer(call: Call) -> None:
    """By a part of a name, and by the other's directory."""
    done = call("compare", "tr9a", "large", "--window", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == GOLDEN


@pytest.mark.parametrize("others", [[], ["large"], ["large", YAML]])
def test_eighty_columns_are_enough(call: Call, monkeypatch: pytest.MonkeyPatch, others: list[object]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    done = call("compare", "tr9a", *others)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_values_at_a_step(call: Call) -> None:
    done = call("compare", "tr9a", "tr9b", "--over", "steps", "--at", "10", "--metric", "learning_rate", "--json")
    found = json.loads(done.stdout)
    assert found["point"] == {"axis": "steps", "at": 10, "limited_by": None, "validation_at": 10}
    assert found["values"] == {
        "learning_rate": {
            "a": {"value": 0.01, "step": 10, "difference": None},
            "b": {"value": 0.01, "step": 10, "difference": 0.0},
        }
    }
    assert [run["planned_steps"] for run in found["runs"]] == [400, 300]
    assert {each["key"]: each["values"] for each in found["differences"]} == {
        "training.steps": {"a": "400", "b": "300"},
        "training.global_batch_size": {"a": "8", "b": "16"},
        "training.seed": {"a": "1234", "b": "7"},
        "optimizer.learning_rate": {"a": "0.002", "b": "0.004"},
    }


def test_files(call: Call, tmp_path: Path) -> None:
    done = call("compare", "tr9a", "tr9b", "--csv", tmp_path / "x.csv", "--png", tmp_path / "x.png", "--json")
    assert (done.returncode, done.stderr) == (0, f"written: {tmp_path}/x.csv\nwritten: {tmp_path}/x.png\n")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["tr9a-4M-small"] * 40 + ["tr9b-4M-large"] * 12
    assert float(rows[44]["validation_loss"]) == 2.5 + 6 * math.exp(-5 / 4)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_settings_of_runs_that_were_never_launched(call: Call) -> None:
    done = call("compare", "tr3d-1B3-more-warmup", "tr20a-125M-baseline")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1:3] == [
        "a  tr3d-1B3-more-warmup  settings of a YAML",
        "b  tr20a-125M-baseline   settings of a YAML",
    ]
    assert ["model.hidden_size", "2048", "768"] in [line.split() for line in lines]
    assert not any(line.startswith(("name ", "why ", "family ")) for line in lines)


def test_a_run_at_work(recorded: Path, call: Call, tmp_path: Path) -> None:
    """Its last line may be half written; a run of one name elsewhere is told apart by its directory."""
    events = make_run(tmp_path, "tr9a-4M-small")
    record_launch(events, "0001", 0, {1: 5.0, 2: 4.0}, outcome=None)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with (events / "0001-trainer.jsonl").open("a") as file:
        file.write(f'{{"kind": "step", "time": "{now}", "step": 3, "lo')
    done = call("compare", "tr9a", tmp_path / "tr9a-4M-small")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["a", "tr9a-4M-small", "finished", "(step", "40)", f"{recorded}/tr9a-4M-small"]
    assert lines[2].split() == ["b", "tr9a-4M-small", "running", "(step", "2)", f"{tmp_path}/tr9a-4M-small"]
    assert "At step 2, where b is; all others have come at least so far:" in lines


def test_damage_is_told_and_passed_over(call: Call, tmp_path: Path) -> None:
    events = make_run(tmp_path, "tr9c-4M-damaged")
    record_launch(events, "0001", 0, {1: 5.0, 2: 4.0})
    with (events / "0001-trainer.jsonl").open("a") as file:
        file.write('{"kind": "step", torn\n')
    (tmp_path / "tr9c-4M-damaged" / "config.yaml").write_text("a: [")
    done = call("compare", "tr9a", tmp_path / "tr9c-4M-damaged")
    assert done.returncode == 1
    assert "settings: those of fewer than two runs are known" in done.stdout
    assert "4.5000" in done.stdout
    told = done.stderr.splitlines()
    assert all(line.startswith("passed over: ") for line in told)
    assert sum("0001-trainer.jsonl:5 is not JSON" in line for line in told) == 1
    assert any("config.yaml" in line and "its settings are left out" in line for line in told)


def test_what_an_older_version_wrote_is_compared_as_it_stands(call: Call, tmp_path: Path) -> None:
    make_run(tmp_path, "tr9d-4M-old")
    config = tmp_path / "tr9d-4M-old" / "config.yaml"
    config.write_text(config.read_text().replace("  seed: 1234\n", "  random_seed: 1234\n"))
    done = call("compare", "tr9a", tmp_path / "tr9d-4M-old")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["training.seed", "1234", "-"] in rows
    assert ["training.random_seed", "-", "1234"] in rows
    assert ["b", "tr9d-4M-old", "-/300", "-", "-", "-", "-", "-"] in rows


def test_losses_of_other_texts_are_said_to_be(call: Call, tmp_path: Path) -> None:
    record_launch(make_run(tmp_path, "tr9e", "--data.path", "other"), "0001", 0, {1: 5.0})
    out = call("compare", "tr9a", tmp_path / "tr9e").stdout
    assert "one run of each: how much another seed would change is not known" in out
    assert "data.path differ: losses may be of other texts" in out


def test_long_values_are_cut_where_they_are_the_same() -> None:
    values = [f"/a/very/long/path/to/the/data/of/all/runs/{name}" for name in ("first", "second")]
    compared = [
        ComparedRun(letter, letter, letter, None, None, {"data.path": value}, None)
        for letter, value in zip("ab", values, strict=True)
    ]
    assert settings_tables(compared, None) == [(["setting", "a", "b"], [["data.path", "...first", "...second"]])]


def test_settings_of_many_runs_stand_in_several_tables() -> None:
    compared = [
        ComparedRun(letter, letter, letter, None, None, {"training.seed": str(10**7 + number)}, None)
        for number, letter in enumerate("abcdefgh")
    ]
    tables = settings_tables(compared, 80)
    assert [head for head, _ in tables] == [["setting", *"abcdef"], ["setting", "g", "h"]]
    assert tables[1][1] == [["training.seed", "10000006", "10000007"]]
    assert len(settings_tables(compared, None)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["tr9x"], "there is no run directory"),
        (["tr9"], "tr9 may be any of tr9a-4M-small, tr9b-4M-large; say which"),
        (["tr9a", "tr9a-4M-small"], "tr9a and tr9a-4M-small are the same run; name it once"),
        (["/"], "/ is no run's directory"),
        ([str(number) for number in range(21)], "21 runs are too many to be told apart; name at most 20"),
        (["tr9a", "--at", "soon"], "--at soon is no number of steps or tokens"),
        (["tr9a", "--metric", "loss"], "--metric loss is not known; there are training_loss, validation_loss"),
        (["tr9a", "--group", "code"], "no run was validated on a group code; known here: validation"),
        (["tr9a", "--csv", "/nowhere/x.csv"], "/nowhere/x.csv cannot be written: there is no folder /nowhere"),
        (["tr9a", "--png", "/"], "/ is a folder; name a file"),
    ],
)
def test_refusals(call: Call, arguments: list[str], message: str) -> None:
    done = call("compare", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_points_as_people_write_them() -> None:
    texts = ["5000", "5_000", "5,000", "1e9", "2.5B", "400m"]
    assert [parse_point(text) for text in texts] == [5000, 5000, 5000, 10**9, 2_500_000_000, 400_000_000]
    for text in ("", "0", "-5", "1e30", "B", "1.5.2"):
        with pytest.raises(TrainyardError, match="is no number of steps or tokens"):
            parse_point(text)


def test_names_that_are_not_launched_are_not_taken_for_parts_of_others(call: Call, recorded: Path) -> None:
    """The name of a YAML under train/ is that run, also where a launched run's name begins so."""
    rehearsal = recorded / "tr0a-4M-stdlib-rehearsal-1"
    (rehearsal / "events").mkdir(parents=True)
    try:
        assert "a  tr0a-4M-stdlib  settings of a YAML" in call("compare", "tr0a-4M-stdlib").stdout
    finally:
        (rehearsal / "events").rmdir()
        rehearsal.rmdir()
