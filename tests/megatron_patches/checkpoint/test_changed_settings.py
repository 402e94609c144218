"""What a launch changes of a run that it resumes takes effect and is said, or is refused: nothing is silent."""

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from megatron_patches.artefacts.manifest import build_manifest
from megatron_patches.checkpoint.changed_settings import changes, describe_changes, effect_of, sorted_in, without_effect
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.checkpoint.resume_check import SavedStep, learning_rate_problems
from megatron_patches.checkpoint.skipped_data import skipped_data_problems
from megatron_patches.run.config import RunConfig
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
    assert {effect_of(key) for key in keys} == {"identity", "rate", "stored", "applied"}


def test_what_is_identity_is_compared_as_such(tmp_path: Path) -> None:
    config = run(tmp_path)
    identity = run_identity(config, "data", "tokenizer")
    for key in fields(RunConfig):
        if effect_of(key) != "identity" and key.split(".")[0] != "model":
            assert key not in identity, key
    assert {effect_of(key) for key in identity if key not in ("dataset", "tokenizer")} == {"identity"}


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
    assert "in the steps that are left the learning rate is 6e-05 either way. Restore it; to train on" in problem
    (ended,) = problems(tmp_path, 10, [], ["--optimizer.learning_rate", "1e-3"])
    assert "no step is left of 10" in ended


def test_a_rate_changed_before_would_jump(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 4, DECAYED, [*DECAYED, "--optimizer.learning_rate", "1e-3"])
    assert "the learning rate would jump" in problem


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
