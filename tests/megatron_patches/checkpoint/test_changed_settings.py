"""What a launch changes of a run that it resumes takes effect and is said, or is refused: nothing is silent."""

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from megatron_patches.artefacts.manifest import build_manifest
from megatron_patches.artefacts.marks import mark_damaged
from megatron_patches.checkpoint.changed_data import (
    changed_sources_problems,
    replaced_sources,
    skipped_data_problems,
    told_changes,
)
from megatron_patches.checkpoint.changed_settings import (
    changes,
    describe_changes,
    effect_of,
    recorded_changes,
    second_rate_problems,
    sorted_in,
    without_effect,
)
from megatron_patches.checkpoint.identity import OF_OPTIMIZER, differences, run_identity
from megatron_patches.checkpoint.recorded_changes import (
    CHANGES,
    MOST,
    as_fact,
    changes_of,
    continued_changes,
    in_json,
)
from megatron_patches.checkpoint.resume_check import SavedStep, learning_rate_problems, length_problems, rate_jump
from megatron_patches.configuration.yaml_text import dump_yaml, read_yaml
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import ChangeRecord
from megatron_patches.run.reading import load_run, to_yaml
from tests.small_run import SMALL_RUN, write_run

DECAYED = ["--schedule.decay_end", "6"]


def run(tmp_path: Path, *settings: str) -> RunConfig:
    return load_run(write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml", SMALL_RUN), settings)


def saved(tmp_path: Path, step: int, *settings: str) -> SavedStep:
    """A checkpoint of the run as it was with these settings."""
    config = run(tmp_path, *settings)
    folder = tmp_path / f"step-{step:010d}"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    facts = {"step": step, "learning_rate": config.learning_rate(step)}
    facts["next_learning_rate"] = config.learning_rate(step + 1)
    return SavedStep(folder, build_manifest("checkpoint", [], facts))  # type: ignore[arg-type]


def problems(tmp_path: Path, step: int, before: Sequence[str], now: Sequence[str]) -> list[str]:
    newest, config = saved(tmp_path, step, *before), run(tmp_path, *now)
    return [*learning_rate_problems(newest, config), *without_effect(newest, config)]


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a section and of the sections in it, of all kinds."""
    for key, field in model.model_fields.items():
        sections = list(models_in(field.annotation))
        yield f"{prefix}{key}"
        for section in sections:
            yield from fields(section, f"{prefix}{key}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from models_in(part)


def test_of_every_key_it_is_said_what_a_change_does() -> None:
    keys = list(fields(RunConfig))
    assert len(keys) > 80 and "schedule.decay" in keys and "training.loss_scale.initial" in keys
    assert [key for key in keys if sorted_in(key) is None] == ["data", "training"], "sort new keys in"
    assert {effect_of(key) for key in keys} == {"identity", "rate", "stored", "applied", "none"}
    assert {key for key in keys if effect_of(key) == "none"} == {key for key in keys if key.startswith("data.loader")}


def test_what_is_identity_is_compared_as_such(tmp_path: Path) -> None:
    config = run(tmp_path)
    identity = run_identity(config, {"dataset": "data"}, "tokenizer")
    for key in fields(RunConfig):
        if effect_of(key) != "identity" and key.split(".")[0] != "model":
            assert key not in identity, key
    assert {effect_of(key) for key in identity if key not in ("dataset", "tokenizer")} == {"identity"}
    assert {effect_of(f"optimizer.{key}") for key in OF_OPTIMIZER} == {"identity"}


def test_what_data_meant_before_it_could_be_split_by_hash_and_cut_into_windows(tmp_path: Path) -> None:
    """A checkpoint without these keys was trained in file order on a stream."""
    datasets = {"dataset": "data"}
    now = run_identity(run(tmp_path), datasets, "tokenizer")
    saved = {key: value for key, value in now.items() if key != "data.split_by" and not key.startswith("data.samples")}
    assert len(now) == len(saved) + 2
    assert differences(saved, now, run(tmp_path)) == []
    for setting, told in (
        ("--data.split_by=document_hash", "data.split_by is file_order in the checkpoint and document_hash now"),
        ("--data.samples={name: windows}", "data.samples.name is stream in the checkpoint and windows now"),
    ):
        config = run(tmp_path, setting)
        assert differences(saved, run_identity(config, datasets, "tokenizer"), config) == [told]


def test_an_unchanged_run_has_no_changes(tmp_path: Path) -> None:
    for settings in ([], DECAYED, ["--training.precision", "fp16"], ["--evaluation", "{every_steps: 2, samples: 4}"]):
        newest = saved(tmp_path, 4, *settings)
        assert changes(newest.folder, run(tmp_path, *settings)) == []
        assert describe_changes(newest.folder, run(tmp_path, *settings)) == ""
        assert problems(tmp_path, 4, settings, settings) == []


def test_a_rate_changed_behind_the_decay_is_refused_with_the_reason(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 7, DECAYED, [*DECAYED, "--optimizer.learning_rate", "1e-3"])
    assert (
        problem.startswith("optimizer.learning_rate is 0.0006 in ")
        and "and 0.001 now, which would do nothing" in problem
    )
    assert "in the steps that are left the learning rate is 6e-05 either way. Restore it; to train on at" in problem


def test_a_rate_changed_before_would_jump(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 4, DECAYED, [*DECAYED, "--optimizer.learning_rate", "1e-3"])
    assert "the learning rate would jump" in problem


def stable(decay: int, shape: str) -> str:
    return f"--schedule {{name: warmup_stable_decay, warmup: 2, decay: {decay}, shape: {shape}}} --training.steps 200"


CONSTANT = "--schedule {name: constant, warmup: 2} --training.steps 20"
CONTINUOUS = {
    "a linear decay": (20, CONSTANT, stable(180, "linear")),
    "a cosine": (20, CONSTANT, stable(180, "cosine")),
    "a square root, steep as it is": (20, CONSTANT, stable(180, "square_root")),
    "an extension": (20, CONSTANT, f"{CONSTANT} --training.extend_to 200"),
    "an extension in its middle": (
        30, f"{CONSTANT} --training.extend_to 40", f"{CONSTANT} --training.extend_to [40,60]"
    ),
    "another peak in a warm-up of another length": (
        5,
        "--schedule {name: constant, warmup: 10} --optimizer.learning_rate 1e-3",
        "--schedule {name: constant, warmup: 20} --optimizer.learning_rate 2e-3 --training.steps 40",
    ),
    "before the first step": (0, CONSTANT, f"{CONSTANT} --optimizer.learning_rate 1e-3"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTINUOUS)
def test_a_course_that_is_continuous_in_the_limit_is_accepted(tmp_path: Path, case: str) -> None:
    """The next step may be planned otherwise than the checkpoint had it, where that is the new course."""
    step, before, now = CONTINUOUS[case]
    assert problems(tmp_path, step, words(before), words(now)) == []
    assert rate_jump(saved(tmp_path, step, *words(before)), run(tmp_path, *words(now))) is None


JUMPS = {
    # 1e-4 at step 1,000 by a decay that was called constant, nine times that by the schedule that was to extend it
    "the document's": (
        1000,
        "--schedule {name: linear, warmup: 100, final_learning_rate: 1e-4} --training.steps 1000",
        "--schedule {name: linear, warmup: 100, final_learning_rate: 1e-4} --training.steps 10000",
        "was saved at 0.0001, the configuration gives 0.000918182 at its step, 1000. Restore schedule, "
        "optimizer.learning_rate and training.steps; to train longer, keep training.steps and set training.extend_to",
    ),
    "an extension that is replaced": (
        40, f"{CONSTANT} --training.extend_to 40", f"{CONSTANT} --training.extend_to 60",
        "to extend it again, add to training.extend_to: each extension begins at the end before it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JUMPS)
def test_a_jump_is_refused_unless_it_is_named(tmp_path: Path, case: str) -> None:
    step, before, now, told = JUMPS[case]
    peak = ["--optimizer.learning_rate", "1e-3"]
    (problem,) = problems(tmp_path, step, [*peak, *words(before)], [*peak, *words(now)])
    assert "the learning rate would jump" in problem and told in problem
    named = [*peak, *words(now), "--checkpoint.allow_rate_jump_at"]
    assert problems(tmp_path, step, [*peak, *words(before)], [*named, str(step)]) == []
    (elsewhere,) = problems(tmp_path, step, [*peak, *words(before)], [*named, str(step - 1)])
    assert f"names step {step - 1}, not this one" in elsewhere
    newest = saved(tmp_path, step, *peak, *words(before))
    jump = recorded_changes(newest, run(tmp_path, *named, str(step)))[-1]
    assert (jump.step, jump.key) == (step, "learning_rate") and jump.before < jump.now


MUON = "--optimizer {name: muon, learning_rate: 1e-2, rest: {learning_rate: %s}}"


def test_the_second_rate_of_muon_may_not_jump_either(tmp_path: Path) -> None:
    newest = saved(tmp_path, 4, *words(MUON % "1e-3"))
    assert list(second_rate_problems(newest, run(tmp_path, *words(MUON % "1e-3")))) == []
    (problem,) = second_rate_problems(newest, run(tmp_path, *words(MUON % "2e-3")))
    assert "optimizer.rest.learning_rate is 0.1 of optimizer.learning_rate" in problem and "0.2 of it now" in problem
    named = run(tmp_path, *words(MUON % "2e-3"), "--checkpoint.allow_rate_jump_at=4")
    assert list(second_rate_problems(newest, named)) == list(without_effect(newest, named)) == []
    assert [each.key for each in recorded_changes(newest, named)] == ["optimizer.rest.learning_rate"]
    assert list(second_rate_problems(newest, run(tmp_path))) == []


def test_a_run_that_has_ended_is_told_how_it_goes_on(tmp_path: Path) -> None:
    (told,) = length_problems(saved(tmp_path, 10), run(tmp_path))
    assert "the run has ended" in told and "--training.extend_to N, N above 10 steps" in told
    extended = ["--training.extend_by", "[10, 5]", "--schedule.warmup=1"]
    (told,) = length_problems(saved(tmp_path, 25, *extended), run(tmp_path, *extended))
    assert "--training.extend_to '[20, 25, N]', N above 25 steps" in told
    mark_damaged(tmp_path / "step-0000000025", "a test")  # the launch will look at it, and fall back
    assert list(length_problems(saved(tmp_path, 25, *extended), run(tmp_path, *extended))) == []


def test_what_decides_the_numbers_goes_on_record(tmp_path: Path) -> None:
    newest = saved(tmp_path, 4)
    patterns = "{'*.attention.*': 0.1, '*.bias': 0.5}"
    now = ["--optimizer.beta1=0.8", f"--optimizer.weight_decay_by_name={patterns}", "--logging.every_steps=2"]
    found = recorded_changes(newest, run(tmp_path, *now))
    assert [(each.step, each.key, each.before, each.now) for each in found] == [
        (4, "optimizer.weight_decay_by_name", {}, {"*.attention.*": 0.1, "*.bias": 0.5}),
        (4, "optimizer.beta1", 0.9, 0.8),
    ]
    assert "logging.every_steps 1 -> 2" in describe_changes(newest.folder, run(tmp_path, *now))
    swapped = saved(tmp_path, 5, f"--optimizer.weight_decay_by_name={patterns}")
    other = "--optimizer.weight_decay_by_name={'*.bias': 0.5, '*.attention.*': 0.1}"
    assert [each.key for each in changes(swapped.folder, run(tmp_path, other))] == ["optimizer.weight_decay_by_name"]


def test_a_checkpoint_of_an_earlier_version_was_not_extended(tmp_path: Path) -> None:
    newest, config = saved(tmp_path, 4), run(tmp_path, "--training.extend_to=20")
    settings = read_yaml(newest.folder / "config.yaml")
    del settings["training"]["extend_to"], settings["training"]["extend_by"], settings["schedule"]["extensions"]
    (newest.folder / "config.yaml").write_text(dump_yaml(settings))
    assert describe_changes(newest.folder, config).endswith(": training.extend_to [] -> [20]")
    assert describe_changes(newest.folder, run(tmp_path)) == ""


def test_the_record_of_changes_is_bounded_and_read_with_care() -> None:
    many = [ChangeRecord(step, "optimizer.beta1", 0.9, 0.8) for step in range(2 * MOST)]
    kept = continued_changes(many, [ChangeRecord(2 * MOST - 1, "optimizer.beta1", 0.9, 0.7)])
    assert len(kept) == MOST and kept[-1].now == 0.7, "a change that is made again counts once"
    assert changes_of({CHANGES: as_fact(kept)}) == kept
    odd = [3, {"step": "4", "key": "a"}, {"step": 4}, {"step": 4, "key": "a", "now": "x" * 1000}]
    (found,) = changes_of({CHANGES: odd})
    assert (found.step, found.before) == (4, None) and len(found.now) < 100
    assert changes_of({CHANGES: "odd"}) == changes_of({}) == []
    assert in_json(float("nan")) == "nan"
    assert in_json(("a" * 300, "b" * 300)) == ["a" * 300, "b" * 300] and len(in_json(["a" * 5000])) < 100


WITHOUT_EFFECT = {
    "a warm-up that is over": (
        5, "--schedule {name: constant, warmup: 2}", "--schedule {name: constant, warmup: 4}", "schedule.warmup is 2"
    ),
    "a timescale under the floor": (
        8,
        "--schedule {name: inverse_square_root, timescale: 1, final_learning_rate: 5e-4}",
        "--schedule {name: inverse_square_root, timescale: 2, final_learning_rate: 5e-4}",
        "schedule.timescale is 1",
    ),
    "another course to the same end": (
        7,
        "--schedule {name: cosine, decay_end: 6, final_learning_rate: 1e-5}",
        "--schedule {name: linear, decay_end: 6, final_learning_rate: 1e-5}",
        "schedule is {unit: steps, warmup: ",
    ),
    "the first loss scale": (
        4, "--training.precision fp16", "--training.precision fp16 --training.loss_scale {initial: 1024}",
        "training.loss_scale.initial is 65536.0",
    ),
}  # fmt: skip


def words(settings: str) -> list[str]:
    return [
        word for part in settings.split("--")[1:] for word in (f"--{part.split()[0]}", part.split(None, 1)[1].strip())
    ]


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_what_would_do_nothing_is_refused(tmp_path: Path, case: str) -> None:
    step, before, now, told = WITHOUT_EFFECT[case]
    (problem,) = problems(tmp_path, step, words(before), words(now))
    assert problem.startswith(told) and "would do nothing" in problem and "Restore it" in problem


APPLIED = {
    "a longer run": ("", "--training.steps 20 --schedule.decay_end 10"),
    "a later decay": (
        "--schedule {name: warmup_stable_decay, warmup: 2, decay: 2}",
        "--schedule {name: warmup_stable_decay, warmup: 2, decay: 4}",
    ),
    "another schedule": ("--schedule {name: constant}", "--schedule {name: warmup_stable_decay, decay: 3}"),
    "a length in samples": ("", "--training.steps null --training.samples 80"),
    "the same course, said otherwise": ("", "--schedule.decay_end 10"),
    "memory": ("", "--training.micro_batch_size 4 --training.recomputation full"),
    "saves": ("", "--checkpoint.every_steps 2 --checkpoint.keep_last 3"),
    "the loss scale's window": (
        "--training.precision fp16",
        "--training.precision fp16 --training.loss_scale {window: 5}",
    ),
}


@pytest.mark.parametrize("case", APPLIED)
def test_what_takes_effect_is_said(tmp_path: Path, case: str) -> None:
    before, now = (words(settings) for settings in APPLIED[case])
    assert problems(tmp_path, 4, before, now) == []
    told = describe_changes(tmp_path / "step-0000000004", run(tmp_path, *now))
    assert told.startswith("changed since step-0000000004: ") and " -> " in told


def test_a_configuration_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    newest, now = saved(tmp_path, 4), run(tmp_path)
    (newest.folder / "config.yaml").write_text("- odd\n")
    assert "whether settings were changed since step-0000000004 is not known" in describe_changes(newest.folder, now)
    odd = "optimizer: {learning_rate: [odd]}\nschedule: 3\ntraining: {loss_scale: 1}\ndata: null\nmodel: []\n"
    (newest.folder / "config.yaml").write_text(odd)
    assert "data null -> " in describe_changes(newest.folder, now)
    assert list(without_effect(newest, now)) == []


@pytest.mark.parametrize(
    ("before", "now", "differs_from"),
    [
        ("[]", "[[32, 40]]", None),
        ("[[8, 16]]", "[[8, 16], [40, 48]]", None),
        ("[[8, 16], [60, 64]]", "[[8, 12], [12, 16]]", None),
        ("[]", "[[31, 40]]", 31),
        ("[[8, 16]]", "[]", 8),
        ("[[8, 16]]", "[[8, 16], [39, 48]]", 39),
    ],
)
def test_samples_left_out_change_ahead_alone(tmp_path: Path, before: str, now: str, differs_from: int | None) -> None:
    """Of a run that was trained on 32 samples, 8 a step."""
    newest = saved(tmp_path, 4, f"--data.skip_samples={before}")
    newest.manifest.facts["samples"] = 32
    config = run(tmp_path, f"--data.skip_samples={now}")
    problems = list(skipped_data_problems(newest, config))
    assert bool(problems) == (differs_from is not None)
    if problems:
        step = (differs_from or 0) // 8 - (before != "[]" and (differs_from or 0) > 8)
        assert f"differs from sample {differs_from} on: the run has passed it" in problems[0]
        assert f"roll back to a step at or before {step} (tools/runs rollback tr8-1K-base --to STEP" in problems[0]


def test_a_checkpoint_of_an_earlier_version_left_nothing_out(tmp_path: Path) -> None:
    newest = saved(tmp_path, 4)
    path = newest.folder / "config.yaml"
    assert "skip_samples: []" in path.read_text()
    path.write_text(path.read_text().replace("  skip_samples: []\n", ""))
    newest.manifest.facts["samples"] = 32
    assert list(skipped_data_problems(newest, run(tmp_path, "--data.skip_samples=[[32, 40]]"))) == []
    assert len(list(skipped_data_problems(newest, run(tmp_path, "--data.skip_samples=[[24, 40]]")))) == 1


def source_from(step: int, name: str = "b", more: str = "") -> str:
    """One change of sources, as YAML."""
    return f"[{{from_step: {step}, sources: [{{name: {name}, path: somewhere/{name}{more}}}]}}]"


@pytest.mark.parametrize(
    ("before", "now", "differs_from"),
    [
        ("[]", source_from(4), None),
        (source_from(2), source_from(2).replace("somewhere", "moved"), None),
        (source_from(6), source_from(5, "c"), None),
        ("[]", source_from(3), 3),
        (source_from(3), "[]", 3),
        (source_from(2), source_from(2, more=", range: '0:0.5'"), 2),
        (source_from(2), source_from(2, more=", weight: 2"), 2),
    ],
)
def test_sources_change_ahead_alone(tmp_path: Path, before: str, now: str, differs_from: int | None) -> None:
    """Of a run that was saved at step 4 of 8."""
    newest = saved(tmp_path, 4, f"--data.changes={before}")
    problems = list(changed_sources_problems(newest, run(tmp_path, f"--data.changes={now}")))
    assert bool(problems) == (differs_from is not None)
    if problems:
        assert f"data.changes from step {differs_from} on is another than in" in problems[0]
        assert "from step 4 on may be added" in problems[0]


def test_changes_of_sources_are_told_as_before_the_first_step(tmp_path: Path) -> None:
    newest = saved(tmp_path, 4, "--data.changes=[]")
    now = run(tmp_path, "--data.changes=[{from_step: 6, sources: [{name: b, path: b, weight: 3}, {name: c, path: c}]}]")
    assert describe_changes(newest.folder, now) == (
        "changed since step-0000000004: data.changes none -> after step 6: b 0.75 (b), c 0.25 (c)"
    )


def test_changes_that_were_damaged_where_they_were_saved(tmp_path: Path) -> None:
    """A checkpoint is not whole then, which a resume says; nothing fails before it does."""
    newest = saved(tmp_path, 4, f"--data.changes={source_from(3)}")
    written = newest.folder / "config.yaml"
    settings = read_yaml(written)
    cases: list[object] = ["text", 3, ["text", 3, None, [1]], [{"from_step": []}], [{"from_step": 3, "sources": [4]}]]
    for damaged in cases:
        settings["data"]["changes"] = damaged
        written.write_text(dump_yaml(settings))
        assert len(list(changed_sources_problems(newest, run(tmp_path, f"--data.changes={source_from(3)}")))) == 1


@pytest.mark.parametrize(
    ("before", "now", "replaced"),
    [
        (source_from(4), source_from(4, more=", range: '0:0.5'"), {"b"}),
        (source_from(4), source_from(4).replace("somewhere", "moved"), {"b"}),
        (source_from(4), source_from(6), set()),  # its dataset may have been made again: that is told
        (source_from(4), source_from(4, "c"), set()),
        (source_from(3), source_from(3, more=", range: '0:0.5'"), set()),  # it was read
    ],
)
def test_a_source_that_was_not_read_may_be_replaced(tmp_path: Path, before: str, now: str, replaced: set[str]) -> None:
    """Of a run that was saved at step 4 and began with source a."""
    sources = ["--data.path=null", "--data.sources=[{name: a, path: somewhere/a}]"]
    newest = saved(tmp_path, 4, *sources, f"--data.changes={before}")
    assert replaced_sources(newest, run(tmp_path, *sources, f"--data.changes={now}")) == replaced


def test_odd_changes_in_a_checkpoint_are_none(tmp_path: Path) -> None:
    odd = [3, {"from_step": "4"}, {"from_step": 10**400, "sources": []}, {"from_step": 4, "sources": [{"name": ["b"]}]}]
    for changes_then in (odd, "odd", 3, None):
        assert told_changes(changes_then, []) == ((), ())
        newest = saved(tmp_path, 4)
        settings = read_yaml(newest.folder / "config.yaml")
        settings["data"]["changes"] = changes_then if changes_then != odd else odd[:2]
        (newest.folder / "config.yaml").write_text(dump_yaml(settings))
        config = run(tmp_path, f"--data.changes={source_from(4)}")
        assert replaced_sources(newest, config) == set() and list(changed_sources_problems(newest, config)) == []
    many = [{"from_step": 4, "sources": [{"name": f"s{number}", "path": "p", "weight": 1} for number in range(14)]}]
    (line,) = told_changes([], many)[1]
    assert line.startswith("after step 4: s0 0.0714286 (p") and line.endswith(", and 2 more")
