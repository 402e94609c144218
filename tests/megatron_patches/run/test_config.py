"""Reading a run: inheritance, overrides, variables, and every mistake with its message."""

from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from pydantic import BaseModel

from megatron_patches.configuration.fields import known_fields
from megatron_patches.errors import TrainyardError
from megatron_patches.models.layers.position_config import RotaryPositionConfig
from megatron_patches.optim.optimizer_config import AdamWConfig, SGDConfig
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved, load_run, to_yaml
from tests.small_run import SMALL_RUN, write_run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml")


def child(base: Path, text: str) -> Path:
    return write_run(base.parent.parent / "tr9-child" / "tr9a-1K-child.yaml", f"base: ../tr8-base/{base.name}\n{text}")


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(TrainyardError) as caught:
        load_run(path, overrides)
    return str(caught.value)


def test_name_and_family_come_from_the_place(base: Path) -> None:
    config = load_run(base)
    assert (config.name, config.family) == ("tr8-1K-base", "tr8-base")


def test_exponents_are_numbers(base: Path) -> None:
    assert load_run(base).optimizer.learning_rate == 6e-4
    assert load_run(base, ["--optimizer.learning_rate", "3e-3"]).optimizer.learning_rate == 3e-3


def test_a_run_is_its_difference_from_its_base(base: Path) -> None:
    expected = load_run(base).model_dump()
    expected |= {"name": "tr9a-1K-child", "family": "tr9-child", "why": "another width"}
    expected["model"] |= {"hidden_size": 32}
    assert load_run(child(base, "why: another width\nmodel: {hidden_size: 32}")).model_dump() == expected


def test_why_is_not_inherited(base: Path) -> None:
    assert "why is missing" in complaint(child(base, "model: {hidden_size: 32}"))


def test_a_base_may_have_a_base(base: Path) -> None:
    middle = child(base, "why: between\nmodel: {layers: 2}\ntraining: {seed: 7}")
    last = write_run(
        base.parent / "tr8b-1K-last.yaml", f"base: ../tr9-child/{middle.name}\nwhy: last\nmodel: {{layers: 6}}"
    )
    config = load_run(last)
    assert (config.model.layers, config.training.seed, config.model.hidden_size) == (6, 7, 16)


def test_an_optimizer_of_another_name_inherits_nothing(base: Path) -> None:
    config = load_run(child(base, "why: sgd\noptimizer: {name: sgd, learning_rate: 0.1}"))
    assert config.optimizer == SGDConfig(name="sgd", learning_rate=0.1)
    assert "optimizer.learning_rate is missing" in complaint(base, "--optimizer.name", "sgd")
    assert "inherits none of its keys" in complaint(base, "--optimizer.name", "sgd")


def test_an_optimizer_of_the_same_name_is_merged(base: Path) -> None:
    optimizer = load_run(child(base, "why: betas\noptimizer: {name: adamw, beta1: 0.8}")).optimizer
    assert isinstance(optimizer, AdamWConfig)
    assert (optimizer.beta1, optimizer.beta2, optimizer.learning_rate) == (0.8, 0.98, 6e-4)


WORDS = [
    ["--objective", "prefix_lm", "--objective.reset_attention", "true"],
    ["--objective.reset_attention", "true", "--objective", "prefix_lm"],
    ["--objective.reset_attention", "true", "--objective", "{name: prefix_lm}"],
    ["--objective.name", "prefix_lm", "--objective.reset_attention", "true"],
]


@pytest.mark.parametrize("arguments", WORDS)
def test_a_kind_and_its_keys_come_in_any_order(base: Path, arguments: list[str]) -> None:
    objective = load_run(base, arguments).objective
    assert (objective.name, objective.reset_attention) == ("prefix_lm", True)


@pytest.mark.parametrize("section", ["prefix_lm", "{name: prefix_lm, z_loss: 0.1}"])
@pytest.mark.parametrize("arguments", [["--objective", "prefix_lm"], ["--objective.label_smoothing", "0.1"], *WORDS])
def test_the_same_kind_keeps_its_keys(base: Path, section: str, arguments: list[str]) -> None:
    """Whether it is named by its name alone, here or in the file."""
    objective = load_run(child(base, f"why: prefix\nobjective: {section}"), arguments).objective
    assert (objective.name, objective.z_loss) == ("prefix_lm", 0.1 if "z_loss" in section else 0)


def test_an_objective_without_a_name_is_the_usual_one(base: Path) -> None:
    path = child(base, "why: documents\nobjective: {z_loss: 0.1}")
    assert load_run(path, ["--objective", "causal"]).objective.z_loss == 0.1
    assert load_run(path, ["--objective", "prefix_lm"]).objective.z_loss == 0


def test_a_key_of_a_kind_that_was_named_alone(base: Path) -> None:
    path = child(base, "why: far\nmodel: {position_embedding: rotary}")
    position = load_run(path, ["--model.position_embedding.theta", "500000.0"]).model.position_embedding
    assert isinstance(position, RotaryPositionConfig) and position.theta == 500000


def test_a_key_of_another_kind_is_refused_in_any_order(base: Path) -> None:
    arguments = ["--optimizer", "{name: sgd, learning_rate: 0.1}"]
    for found in (
        complaint(base, *arguments, "--optimizer.beta1=0.8"),
        complaint(base, "--optimizer.beta1=0.8", *arguments),
    ):
        assert "optimizer.beta1 has no effect: optimizer.name sgd has no such key" in found


def test_what_a_kind_lacks_is_missing_where_it_was_chosen(base: Path) -> None:
    """Not in the file whose schedule of another kind it replaces."""
    path = child(base, "why: decay\nschedule: {warmup: 1}")
    found = complaint(path, "--schedule", "warmup_stable_decay")
    assert found.startswith("the command line: schedule.decay is missing")
    found = complaint(path, "--schedule", "{name: warmup_stable_decay, decay: 99}")
    assert f"(schedule.warmup is from {path})" not in found and "(schedule.decay is from the command line)" in found


def test_patterns_replace_those_they_are_laid_over(base: Path) -> None:
    """Merged, the last pattern that fits would be an inherited one; and none could be taken away."""
    base.write_text(SMALL_RUN.replace("name: adamw,", "name: adamw, weight_decay_by_name: {'*.bias': 0.1, '*': 0.2},"))
    path = child(base, "why: other decay\noptimizer: {weight_decay_by_name: {'*.bias': 0.3}}")
    assert load_run(path).optimizer.weight_decay_by_name == {"*.bias": 0.3}
    for nothing in ("{}", "null"):
        assert load_run(path, [f"--optimizer.weight_decay_by_name={nothing}"]).optimizer.weight_decay_by_name == {}


@pytest.mark.parametrize(
    ("key", "value"), [("training.recomputation", "none"), ("optimizer.beta1", 0.9), ("parallel.tensor", 1)]
)
def test_null_is_back_to_the_default(base: Path, key: str, value: object) -> None:
    section, name = key.split(".")
    other = {"training.recomputation": "full", "optimizer.beta1": 0.5, "parallel.tensor": 2}[key]
    path = child(base, f"why: other\n{section}: {{{name}: {other}}}")
    assert getattr(getattr(load_run(path), section), name) == other
    assert getattr(getattr(load_run(path, [f"--{key}", "null"]), section), name) == value


def test_null_is_no_value_of_what_has_no_default(base: Path) -> None:
    for key in ("training.micro_batch_size", "optimizer", "model"):
        assert f"the command line: {key} is required (" in complaint(base, f"--{key}=null")
        assert "null means back to the default, and it has none" in complaint(base, f"--{key}=null")


def test_what_may_be_null_is_null_by_default() -> None:
    """Else null would mean two things: itself, and back to the default."""
    may_be = [(key, field) for key, field in known_fields(RunConfig) if NoneType in get_args(field.annotation)]
    assert len(may_be) > 5
    assert [key for key, field in may_be if field.default is not None] == []


def test_null_takes_an_optional_section_away(base: Path) -> None:
    path = child(base, "why: none\nevaluation: null")
    base.write_text(SMALL_RUN + "evaluation: {every_steps: 5, samples: 2}\n")
    assert load_run(base).evaluation is not None
    assert load_run(path).evaluation is None


@pytest.mark.parametrize(
    "arguments", [["--training.steps", "20"], ["--training.steps=20"], ["--training", "{steps: 20}"]]
)
def test_overrides(base: Path, arguments: list[str]) -> None:
    config = load_run(base, arguments)
    assert config.training.steps == 20
    assert config.training.global_batch_size == 8


def test_the_last_override_wins(base: Path) -> None:
    assert load_run(base, ["--training.seed", "1", "--training.seed=2"]).training.seed == 2


def test_an_override_may_contain_an_equals_sign(base: Path) -> None:
    assert load_run(base, ["--data.path=a=b"]).data.path == "a=b"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["training.steps", "8"], "'training.steps' is not an override"),
        (["--training.steps"], "--training.steps has no value"),
        (["--training.steps", "--model.layers", "2"], "--training.steps has no value"),
        (["--model.layers", "[1"], "--model.layers"),
        (["--model", "3", "--model.layers", "4"], "--model.layers reaches into model"),
    ],
)
def test_words_that_are_no_overrides(base: Path, arguments: list[str], message: str) -> None:
    assert message in complaint(base, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.layer", "3"], "model.layer is not a known key; nearest: model.layers"),
        (["--micro_batch_size", "3"], "micro_batch_size is not a known key; nearest: training.micro_batch_size"),
        (["--trainig.seed", "3"], "trainig is not a known key; nearest: training"),
        (["--model.learning_rate", "3"], "nearest: optimizer.learning_rate"),
        (["--zzzz", "3"], "zzzz is not a known key; known here: checkpoint, data,"),
        (["--model.zzzz", "3"], "model.zzzz is not a known key; known here: model.activation"),
        (["--optimizer.momentum", "0.9"], "optimizer.momentum has no effect: optimizer.name adamw has no such key"),
        (["--name", "other"], "name follows from the file's place (tr8-1K-base); remove the key"),
        (["--base", "other"], "base is not a known key"),
        (
            ["--training.steps", '"8"'],
            'training.steps: "8" is not a whole number (optimizer steps of the whole run; or give samples, or tokens)',
        ),
        (["--training.steps", "8.5"], "training.steps: 8.5 is not a whole number"),
        (["--training.steps", "1e300"], "training.steps: 1e+300 is not a whole number"),
        (["--training.steps", "1_000"], 'training.steps: "1_000" is not a whole number'),
        (["--training.steps", "true"], "training.steps: true is not a whole number"),
        (["--training.steps", "0"], "training.steps: 0 is not greater than 0"),
        (["--optimizer.learning_rate", "fast"], 'optimizer.learning_rate: "fast" is not a number'),
        (["--optimizer.learning_rate", ".inf"], 'optimizer.learning_rate: ".inf" is not a number'),
        (["--optimizer.learning_rate", "1e999"], "1e999 is too large a number"),
        (["--model.tied_head", "yes"], 'model.tied_head: "yes" is not true or false'),
        (["--model.tied_head", "1"], "model.tied_head: 1 is not true or false"),
        (["--training." + "a." * 100_000 + "b", "1"], "names no setting: none lies 100001 sections deep"),
        (["--data.split", "true"], "data.split: true is not text (put quotes around it)"),
        (["--data.split", "a,b"], "split 'a,b' is not a list of numbers"),
        (["--data.path", '""'], "data.path is empty"),
        (["--data.validation", "[{name: v, sources: []}]"], "data.validation[0].sources is empty (datasets"),
        (["--data.validation", "nothing"], 'data.validation: "nothing" is not a list (groups'),
        (
            ["--data.validation", f"[{{name: {'v' * 81}, path: data/text}}]"],
            "data.validation[0].name has 81 characters, and may have 80: vvv",
        ),
        (["--evaluation", "3"], "evaluation: 3 is not a section with keys of its own"),
        (["--model.activation", "rely"], "model.activation: \"rely\" is not 'gelu_tanh', 'gelu', 'relu'"),
        (["--optimizer.name", "adam"], 'optimizer.name: "adam" is not known; it is one of adamw, sgd'),
        (["--schedule", "{warmup: 1, name: null}"], "schedule.name: null is not known; it is one of constant"),
        (["--evaluation.samples", "3"], "evaluation.every_steps is missing (steps between two validations"),
        (["--model.attention_heads", "3"], "model: hidden_size 16 is not divisible by attention_heads 3"),
    ],
)
def test_wrong_settings(base: Path, arguments: list[str], message: str) -> None:
    lines = complaint(base, *arguments).splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_section_without_its_name(base: Path) -> None:
    base.write_text(SMALL_RUN.replace("name: adamw, ", ""))
    assert "optimizer.name is missing; it is one of adamw, sgd" in complaint(base)


def test_all_problems_are_reported_at_once_with_their_origin(base: Path) -> None:
    path = child(base, "why: wrong\nmodel: {layerz: 3}")
    base.write_text(SMALL_RUN.replace("steps: 10", "steps: ten"))
    assert complaint(path, "--parallel.tensors", "2").splitlines() == [
        f"{path}: model.layerz is not a known key; nearest: model.layers",
        f'{base}: training.steps: "ten" is not a whole number (optimizer steps of the whole run; or give samples, or '
        "tokens)",
        "the command line: parallel.tensors is not a known key; nearest: parallel.tensor",
    ]


def test_variables_in_paths(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORPUS", raising=False)
    arguments = ["--data.path", "${CORPUS:-data}/text", "--data.tokenizer", "${CORPUS:-}x"]
    assert load_run(base, arguments).data.path == "data/text"
    assert load_run(base, arguments).data.tokenizer == "x"
    monkeypatch.setenv("CORPUS", "/corpora")
    assert load_run(base, arguments).data.path == "/corpora/text"
    monkeypatch.setenv("CORPUS", "")
    assert load_run(base, arguments).data.path == "data/text"


def test_variables_in_paths_of_sources_and_groups(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the path of a group that is short for its one source."""
    monkeypatch.setenv("CORPUS", "/corpora")
    groups = "[{name: short, path: '${CORPUS}/a'}, {name: long, sources: [{name: b, path: '${CORPUS}/b'}]}]"
    sources = ["--data.path", "null", "--data.sources", "[{name: c, path: '${CORPUS}/c'}]", "--data.split", "100"]
    evaluation = ["--evaluation", "{every_steps: 5, samples: 1}"]
    data = load_run(base, [*sources, "--data.validation", groups, *evaluation]).data
    assert [each.path for each in (*data.sources, *(s for group in data.validation for s in group.sources))] == [
        "/corpora/c", "/corpora/a", "/corpora/b",
    ]  # fmt: skip
    monkeypatch.delenv("CORPUS")
    message = complaint(base, *sources, "--data.validation", groups, *evaluation)
    assert "data.validation.path: ${CORPUS}/a: the variable CORPUS is not set" in message


def test_a_variable_that_is_not_set(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORPUS", raising=False)
    message = complaint(base, "--data.path", "${CORPUS}/text")
    assert "data.path: ${CORPUS}/text: the variable CORPUS is not set; export CORPUS=..." in message
    assert "only ${NAME} and ${NAME:-default} are understood" in complaint(base, "--data.path", "$CORPUS/text")


def test_variables_elsewhere_are_text(base: Path) -> None:
    assert load_run(base, ["--why", "${CORPUS} costs 5$"]).why == "${CORPUS} costs 5$"


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file; `tools/runs list`" in complaint(tmp_path / "tr1-1K-none.yaml")


def test_a_missing_base(tmp_path: Path) -> None:
    path = write_run(tmp_path / "tr1-1K-x.yaml", "base: none.yaml\nwhy: x\n")
    assert complaint(path) == f"{path}: base: there is no file {tmp_path / 'none.yaml'}; paths are relative to the file"


def test_bases_in_a_circle(base: Path) -> None:
    path = child(base, "why: x")
    base.write_text(f"base: ../tr9-child/{path.name}\nwhy: y\n")
    message = complaint(path)
    assert "base: comes back to where it started" in message
    assert f"{path} -> {base} -> {path}" in message


@pytest.mark.parametrize("value", ["3", "[a]", '""'])
def test_a_base_that_is_no_path(tmp_path: Path, value: str) -> None:
    assert "is not the path of a run's file" in complaint(write_run(tmp_path / "a.yaml", f"base: {value}\nwhy: x\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("why: a\nwhy: b\n", "line 2, column 1: key 'why' occurs a second time"),
        ("model: {layers: 1, layers: 2}\n", "key 'layers' occurs a second time"),
        ("3: a\n", "key 3 is not a name"),
        ("model: {layers: 1\n", "line 2"),
        ("- a\n", "a run's file holds keys and values"),
        ("", "a run's file holds keys and values"),
        ("why: \x07\n", "not YAML"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str) -> None:
    path = write_run(tmp_path / "tr1-1K-x.yaml", text)
    assert message in complaint(path)
    assert str(path) in complaint(path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "tr1-1K-x.yaml"
    path.write_bytes(b"why: \xff\xfe")
    assert "cannot be read as text" in complaint(path)


def test_the_resolved_configuration_reads_back(base: Path, tmp_path: Path) -> None:
    config = load_run(base, ["--logging.wandb.project", "'1e3'", "--evaluation", "{every_steps: 2, samples: 3}"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_resolved(path) == config


def test_a_resolved_configuration_of_another_version(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(load_run(base)).replace("  seed:", "  sead:"))
    with pytest.raises(TrainyardError, match=r"config.yaml: training.sead is not a known key; nearest: training.seed"):
        load_resolved(path)


def test_every_field_says_what_it_is() -> None:
    silent = [
        key
        for key, field in known_fields(RunConfig)
        if not field.description and key not in ("optimizer.name", "schedule.name")
    ]
    assert silent == []


def test_known_fields_sees_a_field_without_description() -> None:
    class Inner(BaseModel):
        silent: int

    class Outer(BaseModel):
        inner: Inner | None = None

    assert [(key, field.description) for key, field in known_fields(Outer)] == [("inner", None), ("inner.silent", None)]


def test_a_kind_is_chosen_by_its_name_alone(tmp_path: Path) -> None:
    path = write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml")
    short = load_run(
        path, ["--objective", "prefix_lm", "--model.position_embedding", "alibi", "--schedule", "constant"]
    )
    assert (short.objective.name, short.model.position_embedding.name, short.schedule.name) == (
        "prefix_lm", "alibi", "constant",
    )  # fmt: skip
    assert "optimizer.rest is missing" in complaint(path, "--optimizer", "muon")
    assert "adamx" in complaint(path, "--optimizer", "adamx")


def test_what_no_key_alone_is_to_blame_for_is_the_runs_own(tmp_path: Path) -> None:
    """The baseline's warm-up is right there; the run that shortens it is to blame."""
    base = write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml")
    path = write_run(
        tmp_path / "tr8-base" / "tr8b-1K-short.yaml", f"base: {base.name}\nwhy: short\ntraining: {{steps: 2}}\n"
    )
    found = complaint(path).splitlines()
    assert found[0].startswith(f"{path}: schedule.warmup 2 leaves nothing of the 2 steps")
    assert found[0].endswith(f"(schedule.warmup is from {base})")
    assert complaint(base, "--training.steps=2").startswith(f"{base} with its overrides: schedule.warmup 2")


@pytest.mark.parametrize(("written", "number"), [("1e3", 1000), ("1.5e3", 1500), ("800.0", 800), ("3e11", 3 * 10**11)])
def test_a_whole_number_may_be_written_with_an_exponent(tmp_path: Path, written: str, number: int) -> None:
    given = ["--training.steps", "null", "--training.tokens", written, "--optimizer.learning_rate", "1e0"]
    config = load_run(write_run(tmp_path / "run.yaml"), given)
    assert (config.training.tokens, type(config.training.tokens)) == (number, int)
    assert type(config.optimizer.learning_rate) is float
