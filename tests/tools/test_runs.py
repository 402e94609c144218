"""Listing, showing, comparing and beginning runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.errors import TrainyardError
from megatron_patches.config import load_run
from tools.runs_catalogue import (
    describe_all,
    describe_line,
    find_run,
    markdown,
    run_files,
    short,
    table_in_readme,
    write_table,
)
from tools.runs_compare import ABSENT, Difference, compare_runs
from tools.runs_lint import lint_all, lint_runs
from tools.runs_new import create_run
from tools.runs_show import meanings, view_run


def call(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real executable of a copied checkout."""
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "COLUMNS": "200"}
    command = [checkout / "tools" / "runs", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def files_under(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_are_ordered_by_number(checkout: Path) -> None:
    names = [path.stem for path in run_files(checkout)]
    assert names.index("tr3d-1B3-more-warmup") < names.index("tr20a-125M-baseline")


def test_finding_a_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkout / "train" / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml"
    monkeypatch.chdir(path.parent)
    assert find_run("tr0a-4M-stdlib", checkout) == path
    assert find_run(str(path), checkout) == path
    assert find_run("train/tr0-stdlib-gpt/tr0a-4M-stdlib.yaml", checkout) == path
    assert find_run("tr0a-4M-stdlib.yaml", checkout).resolve() == path
    with pytest.raises(TrainyardError, match="there is no run tr0a-4M-stdlb; nearest: tr0a-4M-stdlib"):
        find_run("tr0a-4M-stdlb", checkout)
    with pytest.raises(TrainyardError, match=r"no run train/x\.yaml"):
        find_run("train/x.yaml", checkout)


def test_a_line_of_the_table(checkout: Path) -> None:
    line = describe_line(find_run("tr20a-125M-baseline", checkout))
    assert (line.family, line.baseline, line.parameters) == ("tr20-125M-domain-tokens", None, 124_510_464)
    assert line.tokens == 19073 * 524288


def test_numbers_for_people() -> None:
    assert [short(number) for number in (999, 4_000, 124_510_464, 1_316_605_952, 15 * 10**12)] == [
        "999",
        "4K",
        "125M",
        "1.32B",
        "15T",
    ]


def test_the_markdown_table_survives_a_bar(checkout: Path) -> None:
    path = find_run("tr0a-4M-stdlib", checkout)
    path.write_text(path.read_text().replace("why: show", "why: a|b, show"))
    assert r"| a\|b, show" in markdown([describe_line(path)])


def test_refreshing_the_table(checkout: Path) -> None:
    readme = checkout / "train" / "README.md"
    before = readme.read_text()
    lines, problems = describe_all(checkout)
    assert not problems
    write_table(readme, lines[:1])
    assert table_in_readme(readme) == markdown(lines[:1])
    write_table(readme, lines)
    assert readme.read_text() == before


def test_a_table_without_a_place(checkout: Path) -> None:
    readme = checkout / "train" / "README.md"
    readme.write_text("# The runs\n")
    with pytest.raises(TrainyardError, match="the table of runs has no place"):
        write_table(readme, [])
    assert readme.read_text() == "# The runs\n"


def test_view(checkout: Path) -> None:
    view = view_run(load_run(find_run("tr3d-1B3-more-warmup", checkout)), 64)
    assert (view.layout.data, view.parameters.total) == (4, 1_316_605_952)
    assert view.learning_rates[0][0] == 1
    assert dict(view.learning_rates)[358] == pytest.approx(2e-4)
    assert view.learning_rates[-1] == (143_051, pytest.approx(1e-5))
    content = view.as_json()
    assert content["layout"]["micro_batches"] == 16
    assert content["tokens"] == 143_051 * 512 * 2048
    assert content["config"]["model"]["layers"] == 24


def test_view_of_processes_that_do_not_fit(checkout: Path) -> None:
    with pytest.raises(TrainyardError, match="16 or 32"):
        view_run(load_run(find_run("tr3d-1B3-more-warmup", checkout)), 20)


def test_every_resolved_key_has_a_meaning(checkout: Path) -> None:
    assert meanings()["training.steps"] == "optimizer steps of the whole run"
    assert "optimizer.momentum" in meanings()


def test_differences(checkout: Path) -> None:
    path = find_run("tr0a-4M-stdlib", checkout)
    first = load_run(path)
    second = load_run(path, ["--optimizer", "{name: sgd, learning_rate: 2e-3, weight_decay: 0.1}", "--why", "other"])
    assert compare_runs(first, first) == []
    assert compare_runs(first, second) == [
        Difference("optimizer.name", "adamw", "sgd"),
        Difference("optimizer.beta1", "0.9", ABSENT),
        Difference("optimizer.beta2", "0.95", ABSENT),
        Difference("optimizer.epsilon", "1e-08", ABSENT),
        Difference("optimizer.momentum", ABSENT, "0"),
    ]


def test_a_value_of_null_differs_from_no_value(checkout: Path) -> None:
    path = find_run("tr0a-4M-stdlib", checkout)
    without = compare_runs(load_run(path), load_run(path, ["--evaluation", "null"]))
    assert Difference("evaluation", ABSENT, "null") in without


def test_a_new_family(checkout: Path) -> None:
    base = find_run("tr3d-1B3-more-warmup", checkout)
    created = create_run("tr4a-1B3-rotary", base, "rotary: against learned, all else equal", checkout)
    family = checkout / "train" / "tr4-1B3-rotary"
    assert created == [family / "README.md", family / "tr4a-1B3-rotary.slurm", family / "tr4a-1B3-rotary.yaml"]
    config = load_run(family / "tr4a-1B3-rotary.yaml")
    assert config.why == "rotary: against learned, all else equal"
    assert compare_runs(load_run(base), config) == []
    assert os.access(family / "tr4a-1B3-rotary.slurm", os.X_OK)
    assert not any("{{" in path.read_text() for path in created)
    assert lint_runs([family / "tr4a-1B3-rotary.yaml"], checkout) == []
    assert lint_all(checkout) == ["train/tr4-1B3-rotary: README.md still has a part (to be written); write it"]


def test_a_new_run_of_a_known_family(checkout: Path) -> None:
    readme = (checkout / "train" / "tr20-125M-domain-tokens" / "README.md").read_bytes()
    created = create_run("tr20b-125M-other", find_run("tr20a-125M-baseline", checkout), "yes", checkout)
    assert [path.name for path in created] == ["tr20b-125M-other.slurm", "tr20b-125M-other.yaml"]
    assert (created[0].parent / "README.md").read_bytes() == readme
    assert load_run(created[1]).why == "yes"
    assert lint_all(checkout) == []


@pytest.mark.parametrize("why", ["6e-4", "true", "a: b", "#1", "'quoted'", "ünïcode"])
def test_any_reason_becomes_text(checkout: Path, why: str) -> None:
    created = create_run("tr20b-125M-other", find_run("tr20a-125M-baseline", checkout), why, checkout)
    assert load_run(created[1]).why == why


@pytest.mark.parametrize(
    ("name", "why", "message"),
    [
        ("tr4-rotary", "x", "is not the name of a run; they are tr<N>"),
        ("../tr4a-1B3-x", "x", "is not the name of a run"),
        ("tr4a-1B3-x", "  ", "--why takes one line"),
        ("tr4a-1B3-x", "a\nb", "--why takes one line"),
        ("tr3d-1B3-more-warmup", "x", "tr3d-1B3-more-warmup.yaml exists; a run's name is used once"),
    ],
)
def test_new_runs_that_are_refused(checkout: Path, name: str, why: str, message: str) -> None:
    before = files_under(checkout)
    with pytest.raises(TrainyardError, match=message):
        create_run(name, find_run("tr3d-1B3-more-warmup", checkout), why, checkout)
    assert files_under(checkout) == before


def test_a_new_run_from_a_broken_base(checkout: Path) -> None:
    base = find_run("tr3d-1B3-more-warmup", checkout)
    base.write_text(base.read_text() + "oddity: 1\n")
    before = files_under(checkout)
    with pytest.raises(TrainyardError, match="oddity is not a known key"):
        create_run("tr4a-1B3-x", base, "x", checkout)
    assert files_under(checkout) == before


def test_a_file_in_the_way_leaves_nothing_half_written(checkout: Path) -> None:
    (checkout / "train" / "tr20-125M-domain-tokens" / "tr20b-125M-other.slurm").write_text("mine")
    before = files_under(checkout)
    with pytest.raises(TrainyardError, match="nothing was kept"):
        create_run("tr20b-125M-other", find_run("tr20a-125M-baseline", checkout), "x", checkout)
    assert files_under(checkout) == before


def test_the_executable(whole_checkout: Path) -> None:
    listed = call(whole_checkout, "list")
    assert listed.returncode == 0, listed.stderr
    assert "tr3d-1B3-more-warmup" in listed.stdout
    assert json.loads(call(whole_checkout, "list", "--json").stdout)[0]["run"] == "tr0a-4M-stdlib"

    shown = call(whole_checkout, "show", "tr3d-1B3-more-warmup", "--processes", "64", "--fields")
    for expected in ("data 4", "1,316,605,952", "143,051", "optimizer steps of the whole run", "training.steps"):
        assert expected in shown.stdout
    assert json.loads(call(whole_checkout, "show", "tr0a-4M-stdlib", "--json").stdout)["layout"]["tensor"] == 2

    made = call(whole_checkout, "new", "tr4a-1B3-rotary", "--base", "tr3d-1B3-more-warmup", "--why", "rotary")
    assert made.returncode == 0, made.stderr
    assert "same settings" in call(whole_checkout, "diff", "tr4a-1B3-rotary").stdout
    differences = call(whole_checkout, "diff", "tr4a-1B3-rotary", "tr20a-125M-baseline").stdout
    assert "model.hidden_size" in differences

    linted = call(whole_checkout, "lint")
    assert (linted.returncode, linted.stdout.count("\n")) == (1, 1)
    assert call(whole_checkout, "lint", "tr4a-1B3-rotary").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "tr0a-4M-stdlb"], "nearest: tr0a-4M-stdlib"),
        (["show", "tr3d-1B3-more-warmup", "--processes", "20"], "16 or 32"),
        (["diff", "tr0a-4M-stdlib"], "tr0a-4M-stdlib has no base: name the run to compare with"),
        (["new", "tr4-x", "--base", "tr0a-4M-stdlib", "--why", "x"], "is not the name of a run"),
        (["lint", "nothing"], "there is no run nothing"),
    ],
)
def test_the_executable_refuses(whole_checkout: Path, arguments: list[str], message: str) -> None:
    before = files_under(whole_checkout / "train")
    done = call(whole_checkout, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_under(whole_checkout / "train") == before


def test_a_run_that_does_not_load_is_listed_as_such(whole_checkout: Path) -> None:
    path = whole_checkout / "train" / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml"
    path.write_text("why: broken\n")
    readme = (whole_checkout / "train" / "README.md").read_bytes()
    done = call(whole_checkout, "list")
    assert done.returncode == 2
    assert "tr20a-125M-baseline" in done.stdout
    assert "model is missing" in done.stderr
    assert call(whole_checkout, "list", "--write").returncode == 2
    assert (whole_checkout / "train" / "README.md").read_bytes() == readme


def test_writing_the_table(whole_checkout: Path) -> None:
    readme = whole_checkout / "train" / "README.md"
    fresh = readme.read_bytes()
    readme.write_text(readme.read_text().replace("| 150B |", "| 1B |"))
    assert readme.read_bytes() != fresh
    assert call(whole_checkout, "list", "--write").returncode == 0
    assert readme.read_bytes() == fresh
