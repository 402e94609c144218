"""Listing, showing, comparing and beginning runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.run.reading import load_run
from megatron_patches.sizes import short
from tests.command_line import Call, verb
from tests.small_artefacts import make_checkpoint
from tools.commands.runs import command_line as runs
from tools.commands.runs.compare import ABSENT, Difference, compare_runs, resolved_values
from tools.commands.runs.fields import KeyLine, explain_keys
from tools.commands.runs.lint import lint_all, lint_runs
from tools.commands.runs.listing import by_family, chosen
from tools.commands.runs.new import create_run
from tools.commands.runs.reference import KeyReference, SectionReference, reference
from tools.commands.runs.show import percentage, view_run
from tools.pages.train_table import markdown, table_in_readme, write_table
from tools.run_files.catalogue import RunLine, describe_all, describe_line, find_run, run_files


def execute(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real executable of a copied checkout."""
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "COLUMNS": "200"}
    command = [checkout / "tools" / "runs", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def call(checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`tools/runs` of a copied checkout, in this process: exit code, and what it printed."""
    monkeypatch.setattr(runs, "CHECKOUT", checkout)
    monkeypatch.setenv("TRAINYARD_RUNS", str(checkout / "runs"))  # not those of who runs the tests after `make demo`
    monkeypatch.setenv("COLUMNS", "200")
    return verb(runs, monkeypatch, capsys)


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
    rates = dict(view.learning_rates)
    assert rates[4945] == pytest.approx(2e-4)  # the end of the warm-up of 183,105 samples
    assert (1 in rates, rates[152_972]) == (True, pytest.approx(1e-5))
    content = view.as_json()
    assert content["layout"]["micro_batches"] == 16
    assert (content["steps"], content["samples"]) == (152_972, 73_242_048)
    assert content["tokens"] == 73_242_048 * 2048
    assert content["config"]["model"]["layers"] == 24
    assert content["parameters"]["mlp"] == 24 * (2 * 2048 * 8192 + 8192 + 2048)
    assert content["parameter_shares"]["total"] == 1
    assert content["global_batches"][0] == {"from_step": 1, "samples": 32}
    assert content["global_batches"][-1] == {"from_step": 13_829, "samples": 512}
    assert len(content["global_batches"]) == 16


def test_a_run_that_was_changed_and_is_to_be_extended(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its newest checkpoint is where the next launch goes on, and has what was changed on the way."""
    runs, change = checkout / "made", {"step": 4, "key": "optimizer.beta1", "before": 0.9, "now": 0.8}
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    rates = {"learning_rate": 0.0, "next_learning_rate": 0.0}
    make_checkpoint(runs, 8, "tr0a-4M-stdlib", changes=[change], **rates)
    config = load_run(find_run("tr0a-4M-stdlib", checkout), ["--training.extend_by=480"])
    view = view_run(config, None)
    assert view.resumed_at == 8 and view.as_json()["changes"] == [change]
    first, last = view.as_json()["ends"]
    assert last == first + 480
    notes = {step: note for step, _, note in view.rates()}
    assert notes["8"] == "resumes here (R)" and notes[f"{first:,}"] == "an extension begins (E)"
    assert view.plot(200).splitlines()[-2].split() == ["R", "E"]
    assert max(map(len, view.plot(200).splitlines())) <= 80 and max(map(len, view.plot(60).splitlines())) <= 60


def test_parts_that_are_not_there_are_left_out(checkout: Path) -> None:
    run = find_run("tr3h-350M-v2", checkout)
    view = view_run(load_run(run, ["--model.position_embedding", "alibi"]), None)
    assert [part for part, _, _ in view.parts()] == ["token embedding", "attention", "mlp", "norms", "total"]
    assert view.parts()[0] == ("token embedding", 50_688 * 1024, "14.7%")
    assert view.parts()[3][2] == "<0.1%"


def test_shares() -> None:
    assert [percentage(number, 10_000) for number in (0, 1, 5_000, 10_000)] == ["0.0%", "<0.1%", "50.0%", "100.0%"]


def test_view_of_processes_that_do_not_fit(checkout: Path) -> None:
    with pytest.raises(TrainyardError, match="16 or 32"):
        view_run(load_run(find_run("tr3d-1B3-more-warmup", checkout)), 20)


def test_view_of_a_ramp_that_does_not_divide(checkout: Path) -> None:
    """A launch would refuse it."""
    with pytest.raises(TrainyardError, match=r"global batches of 32 samples, not divisible by .* = 512"):
        view_run(load_run(find_run("tr3d-1B3-more-warmup", checkout)), 1024)


def test_view_of_the_stages(checkout: Path) -> None:
    view = view_run(load_run(find_run("tr3d-1B3-more-warmup", checkout)), None)
    stages = view.stages()
    assert [number for number, _, _ in stages] == [str(number) for number in range(view.layout.pipeline)]
    assert stages[0][1].startswith("embedding, positions, layers.0 to layers.")
    assert stages[-1][1].endswith("to layers.23, final_norm, embedding")
    listed = [stage["layers"] for stage in view.as_json()["stages"]]
    assert [name for names in listed for name in names][2:-2] == [f"layers.{number}" for number in range(24)]
    assert view_run(load_run(find_run("tr0a-4M-stdlib", checkout)), None).stages() == []


def explained(checkout: Path, run: str, *overrides: str) -> dict[str, KeyLine]:
    return {line.key: line for line in explain_keys(load_run(find_run(run, checkout), overrides))}


def test_every_resolved_key_has_a_meaning(checkout: Path) -> None:
    lines = explained(checkout, "tr0a-4M-stdlib")
    assert lines["training.steps"].meaning == "optimizer steps of the whole run; or give samples, or tokens"
    assert all(line.meaning for line in lines.values())
    values = resolved_values(load_run(find_run("tr0a-4M-stdlib", checkout)))
    assert {line.key: line.value for line in lines.values()} == values


def test_a_key_of_several_kinds_has_the_meaning_of_the_kind_taken(checkout: Path) -> None:
    adamw = explained(checkout, "tr0a-4M-stdlib")
    assert adamw["optimizer.beta1"].meaning == "decay of the first moment, per step"
    lion = explained(checkout, "tr0a-4M-stdlib", "--optimizer", "{name: lion, learning_rate: 1e-3}")
    assert lion["optimizer.beta1"].meaning == "weight of the average in the sign that is taken"


def test_what_else_a_key_could_be(checkout: Path) -> None:
    lines = explained(checkout, "tr0a-4M-stdlib")
    assert lines["optimizer.name"].choices == ["adamw", "sgd", "adafactor", "lion", "muon"]
    assert lines["optimizer.name"].other_keys["with sgd"] == ["momentum"]
    assert "with adamw" not in lines["optimizer.name"].other_keys
    assert lines["model.position_embedding.name"].choices == ["learned", "rotary", "alibi", "none"]
    assert lines["model.position_embedding.name"].other_keys == {"with rotary": ["theta", "fraction", "pairs"]}
    assert lines["model.activation"].choices[-1] == "swiglu"
    assert lines["model.init_std"].choices == ["a number", "small", "megatron_530b"]
    assert lines["parallel.zero_stage"].choices == ["0", "1", "2", "3"]
    assert lines["training.batch_ramp"].other_keys == {"its keys": ["start", "increment", "samples"]}
    assert lines["training.seed"].choices == []
    assert list(lines).index("optimizer.name") < list(lines).index("optimizer.learning_rate")


def test_an_explained_key_fits_the_terminal(checkout: Path) -> None:
    text = explained(checkout, "tr0a-4M-stdlib")["schedule.name"].as_text(60)
    assert text.startswith("schedule.name = ")
    assert max(map(len, text.splitlines())) <= 60
    assert "one of: constant, inverse_square_root, linear, cosine," in text


def known(beginning: str) -> dict[str, SectionReference]:
    return {section.heading: section for section in reference(beginning)}


def test_the_reference_of_a_section_of_several_kinds() -> None:
    sections = known("optimizer")
    kinds = [f"optimizer with name: {kind}" for kind in ("adamw", "sgd", "adafactor", "lion", "muon")]
    assert list(sections) == ["the run", *kinds, "optimizer.rest, of optimizer with name: muon"]
    sgd = {key.key: key for key in sections["optimizer with name: sgd"].keys}
    assert sgd["optimizer.momentum"] == KeyReference(
        "optimizer.momentum", False, 0.0, "a number from 0, below 1", "decay of the velocity, per step"
    )
    assert (sgd["optimizer.learning_rate"].required, sgd["optimizer.name"].required) == (True, True)
    assert sgd["optimizer.weight_decay_by_name"].can_be == "a mapping of text to a number from 0"
    assert sections["optimizer with name: sgd"].meaning.startswith("Stochastic gradient descent")


def test_what_a_key_can_be() -> None:
    can_be = {key.key: key.can_be for section in reference() for key in section.keys}
    assert can_be["model.init_std"] == "a number, or one of: small, megatron_530b"
    assert can_be["model.key_value_heads"] == "a whole number above 0, or null"
    assert can_be["parallel.zero_stage"] == "one of: 0, 1, 2, 3"
    assert can_be["training.trainable"] == "a list, each entry text"
    assert can_be["storage.locations"] == "a list, each entry a section"
    assert not [text for text in can_be.values() if "class" in text]
    assert can_be["training.batch_ramp"] == "a section, or null"
    assert can_be["objective"] == "a section, with name: causal, prefix_lm, masked_lm"
    assert can_be["data.path"] == "text that is not empty, or null"


def test_the_name_that_may_be_left_out() -> None:
    required = {section.heading: section.keys[0].required for section in reference("objective.name")}
    assert required == {
        "objective with name: causal": False,
        "objective with name: prefix_lm": True,
        "objective with name: masked_lm": True,
    }


def test_the_reference_has_what_a_run_can_write(checkout: Path) -> None:
    keys = {key.key for section in reference() for key in section.keys}
    written = resolved_values(load_run(find_run("tr3d-1B3-more-warmup", checkout)))
    assert set(written) - keys == {"name", "family"}
    assert all(key.meaning and key.can_be for section in reference() for key in section.keys)


@pytest.mark.parametrize("width", [80, 120])
def test_the_reference_fits_the_terminal(width: int) -> None:
    lines = "\n".join(section.as_text(width) for section in reference()).splitlines()
    assert max(map(len, lines)) <= width
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize(("wrong", "nearest"), [("optimiser", "optimizer"), ("model.activatoin", "model.activation")])
def test_keys_that_there_are_not(wrong: str, nearest: str) -> None:
    with pytest.raises(TrainyardError, match=f"no key begins with {wrong}; nearest: {nearest};"):
        reference(wrong)


LINES = [
    RunLine("tr1a-1B3-first", "tr1-family", None, 1_300_000_000, 10**9, "to begin with"),
    RunLine("tr1b-1B3-second", "tr1-family", "tr1a-1B3-first", 1_300_000_000, 10**9, "what follows, at some length"),
    RunLine("tr2-4M-other", "tr2-other", "tr1a-1B3-first", 4_000_000, 10**6, "small"),
]


def test_the_listing_by_family() -> None:
    assert by_family(LINES, 70).splitlines() == [
        "tr1-family",
        "  tr1a-1B3-first    1.3B     1B tokens",
        "      to begin with",
        "  tr1b-1B3-second   1.3B     1B tokens  from tr1a-1B3-first",
        "      what follows, at some length",
        "",
        "tr2-other",
        "  tr2-4M-other     4M     1M tokens  from tr1a-1B3-first",
        "      small",
    ]


def test_a_narrow_listing_loses_nothing() -> None:
    narrow = by_family(LINES, 40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert "      from tr1a-1B3-first\n      what follows, at some length" in narrow


def test_runs_chosen_by_the_beginning_of_their_names() -> None:
    assert chosen(LINES, "") == LINES
    assert [line.run for line in chosen(LINES, "tr1")] == ["tr1a-1B3-first", "tr1b-1B3-second"]
    with pytest.raises(TrainyardError, match="no run's name begins with tr2b; nearest: tr2-4M-other"):
        chosen(LINES, "tr2b")


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
    created = create_run("tr21a-1B3-no-positions", base, "rotary: against learned, all else equal", checkout)
    family = checkout / "train" / "tr21-1B3-no-positions"
    assert created == [
        family / "README.md",
        family / "tr21a-1B3-no-positions.slurm",
        family / "tr21a-1B3-no-positions.yaml",
    ]
    config = load_run(family / "tr21a-1B3-no-positions.yaml")
    assert config.why == "rotary: against learned, all else equal"
    assert [each.key for each in compare_runs(load_run(base), config)] == ["data.split_by"]
    assert config.data.split_by == "document_hash"
    assert os.access(family / "tr21a-1B3-no-positions.slurm", os.X_OK)
    assert not any("{{" in path.read_text() for path in created)
    assert lint_runs([family / "tr21a-1B3-no-positions.yaml"], checkout) == []
    assert lint_all(checkout) == ["train/tr21-1B3-no-positions: README.md still has a part (to be written); write it"]


def test_a_new_run_of_a_known_family(checkout: Path) -> None:
    readme = (checkout / "train" / "tr20-125M-domain-tokens" / "README.md").read_bytes()
    created = create_run("tr20b-125M-other", find_run("tr20a-125M-baseline", checkout), "yes", checkout)
    assert [path.name for path in created] == ["tr20b-125M-other.slurm", "tr20b-125M-other.yaml"]
    assert (created[0].parent / "README.md").read_bytes() == readme
    assert load_run(created[1]).why == "yes"
    assert lint_all(checkout) == []


def test_a_new_script_asks_for_what_the_base_asks_for(checkout: Path) -> None:
    base = find_run("tr3d-1B3-more-warmup", checkout)
    script = base.with_suffix(".slurm")
    text = script.read_text()
    script.write_text(
        text.replace("#SBATCH --time=20:00:00\n", "#SBATCH --time=03:00:00\n#SBATCH --cpus-per-task=24\n")
    )
    created = create_run("tr3z-1B3-other", base, "yes", checkout)[0].read_text()
    asked = [line for line in created.splitlines() if line.startswith("#SBATCH")]
    assert asked[0] == "#SBATCH --job-name=tr3z-1B3-other"
    assert {"#SBATCH --nodes=16", "#SBATCH --time=03:00:00", "#SBATCH --cpus-per-task=24"} <= set(asked)
    assert len(asked) == 9
    assert lint_all(checkout) == []


def test_a_new_script_from_a_base_without_one(checkout: Path) -> None:
    base = find_run("tr3d-1B3-more-warmup", checkout)
    base.with_suffix(".slurm").unlink()
    assert "#SBATCH --nodes=1\n" in create_run("tr3z-1B3-other", base, "yes", checkout)[0].read_text()


@pytest.mark.parametrize("why", ["6e-4", "true", "a: b", "#1", "'quoted'", "ünïcode"])
def test_any_reason_becomes_text(checkout: Path, why: str) -> None:
    created = create_run("tr20b-125M-other", find_run("tr20a-125M-baseline", checkout), why, checkout)
    assert load_run(created[1]).why == why


@pytest.mark.parametrize(
    ("name", "why", "message"),
    [
        ("tr21-rotary", "x", "is not the name of a run; they are tr<N>"),
        ("../tr21a-1B3-x", "x", "is not the name of a run"),
        ("tr21a-1B3-x", "  ", "--why takes one line"),
        ("tr21a-1B3-x", "a\nb", "--why takes one line"),
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
        create_run("tr21a-1B3-x", base, "x", checkout)
    assert files_under(checkout) == before


def test_a_file_in_the_way_leaves_nothing_half_written(checkout: Path) -> None:
    (checkout / "train" / "tr20-125M-domain-tokens" / "tr20b-125M-other.slurm").write_text("mine")
    before = files_under(checkout)
    with pytest.raises(TrainyardError, match="nothing was kept"):
        create_run("tr20b-125M-other", find_run("tr20a-125M-baseline", checkout), "x", checkout)
    assert files_under(checkout) == before


def test_the_executable(whole_checkout: Path, call: Call) -> None:
    listed = execute(whole_checkout, "list")
    assert listed.returncode == 0, listed.stderr
    assert "tr3d-1B3-more-warmup" in listed.stdout
    assert json.loads(call("list", "tr20", "--json").stdout)[0]["run"] == "tr20a-125M-baseline"

    shown = call("show", "tr3d-1B3-more-warmup", "--processes", "64", "--fields")
    for expected in (
        "data 4",
        "1,316,605,952",
        "152,972",
        "61.2%",
        "optimizer steps of the whole run",
        "training.steps",
    ):
        assert expected in shown.stdout
    assert json.loads(call("show", "tr0a-4M-stdlib", "--json").stdout)["layout"]["tensor"] == 2

    overrides = ["--training.seed", "77", "--optimizer.weight_decay=0.3"]
    short_view = call("show", "tr0a-4M-stdlib", *overrides).stdout
    assert ("weight decay 0.3" in short_view, "training.seed" in short_view) == (True, False)
    assert "\n 0.00e+00 *\n" in short_view and "warm-up ends" in short_view
    assert not any(line.endswith(" ") for line in short_view.splitlines())
    assert re.search(r"^training\.seed +77$", call("show", "tr0a-4M-stdlib", *overrides, "--keys").stdout, re.M)

    assert "\noptimizer with name: muon\n" in call("fields", "optimizer").stdout
    assert json.loads(call("fields", "evaluation", "--json").stdout)[1]["heading"] == "evaluation"

    made = call("new", "tr21a-1B3-no-positions", "--base", "tr3d-1B3-more-warmup", "--why", "rotary")
    assert made.returncode == 0, made.stderr
    assert call("diff", "tr21a-1B3-no-positions").stdout.splitlines()[1:] == [
        "data.split_by  file_order            document_hash"
    ]
    assert "same settings" in call("diff", "tr20a-125M-baseline", "tr20a-125M-baseline").stdout
    differences = call("diff", "tr21a-1B3-no-positions", "tr20a-125M-baseline").stdout
    assert "model.hidden_size" in differences

    linted = call("lint")
    assert (linted.returncode, linted.stdout.count("\n")) == (1, 1)
    assert call("lint", "tr21a-1B3-no-positions").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "tr0a-4M-stdlb"], "nearest: tr0a-4M-stdlib"),
        (["show", "tr3d-1B3-more-warmup", "--processes", "20"], "16 or 32"),
        (["show", "tr0a-4M-stdlib", "--training.step", "4"], "training.step is not a known key"),
        (["show", "tr0a-4M-stdlib", "--training.steps"], "--training.steps has no value"),
        (["show", "tr0a-4M-stdlib", "oops"], "'oops' is not an override"),
        (["fields", "optimiser"], "nearest: optimizer"),
        (["diff", "tr0a-4M-stdlib"], "tr0a-4M-stdlib has no base: name the run to compare with"),
        (["new", "tr21-x", "--base", "tr0a-4M-stdlib", "--why", "x"], "is not the name of a run"),
        (["lint", "nothing"], "there is no run nothing"),
        (["list", "tr6", "--write"], "the table in train/README.md has all runs"),
    ],
)
def test_the_executable_refuses(checkout: Path, call: Call, arguments: list[str], message: str) -> None:
    before = files_under(checkout / "train")
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_under(checkout / "train") == before


def test_a_run_that_does_not_load_is_listed_as_such(checkout: Path, call: Call) -> None:
    path = checkout / "train" / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml"
    path.write_text("why: broken\n")
    readme = (checkout / "train" / "README.md").read_bytes()
    done = call("list")
    assert done.returncode == 2
    assert "tr20a-125M-baseline" in done.stdout
    assert "model is missing" in done.stderr
    assert call("list", "--write").returncode == 2
    assert (checkout / "train" / "README.md").read_bytes() == readme


def test_writing_the_table(checkout: Path, call: Call) -> None:
    readme = checkout / "train" / "README.md"
    fresh = readme.read_bytes()
    readme.write_text(readme.read_text().replace("| 10B |", "| 1B |"))
    assert readme.read_bytes() != fresh
    assert call("list", "--write").returncode == 0
    assert readme.read_bytes() == fresh
