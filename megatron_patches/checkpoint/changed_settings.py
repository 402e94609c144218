"""Settings that a launch changes of a run it resumes: each takes effect and is said, or is refused. Torch-free.

What must stay as it was is the run's identity (identity.py); what is left is sorted here, key by key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkpoint.changed_data import told_changes
from megatron_patches.checkpoint.identity import OF_TRAINING
from megatron_patches.checkpoint.recorded_changes import in_json
from megatron_patches.checkpoint.resume_check import SavedStep, rate_jump
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.optim.optimizer_config import MuonConfig
from megatron_patches.optim.schedule_config import ScheduleConfig
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import ChangeRecord
from megatron_patches.run.reading import load_resolved
from megatron_patches.training.training_config import LossScaleConfig

Effect = Literal["identity", "rate", "stored", "applied", "none"]

OPTIMIZER_NUMBERS = (
    *("gradient_clip", "weight_decay", "weight_decay_by_name", "beta1", "beta2", "epsilon", "momentum", "rest"),
    *("decay_exponent", "update_clip", "least_scale"),
)
_EFFECTS: dict[str, Effect] = {
    "name": "identity",
    "model": "identity",
    "objective": "identity",
    **{f"training.{key}": "identity" for key in OF_TRAINING},
    # of the optimizer what an update is; what else it has may change
    "optimizer": "identity",
    **{f"optimizer.{key}": "applied" for key in OPTIMIZER_NUMBERS},
    **dict.fromkeys(("data.split", "data.split_by", "data.samples", "data.sources"), "identity"),
    "init_from": "identity",  # what it names is compared by id (launch/init_from.py)
    "data.sequence_length": "identity",
    "optimizer.learning_rate": "rate",
    "optimizer.rest.learning_rate": "rate",
    "schedule": "rate",
    # the checkpoint's own scale is continued
    "training.loss_scale.initial": "stored",
    # of datasets and tokenizers the ids are compared: the same one may lie somewhere else
    "data.skip_samples": "applied",  # where it changes nothing that was read: changed_data.py
    "data.changes": "applied",  # where they change nothing that was read: changed_data.py
    "data.validation": "applied",
    "data.loader": "none",  # it decides when samples are read, and no number of training
    # of raw text what it holds is compared, and what decides order and tokens; the same files may lie somewhere else
    **dict.fromkeys(("data.text.key", "data.text.append_eod", "data.text.shuffle_documents"), "identity"),
    **dict.fromkeys(("data.text", "data.path", "data.tokenizer", "data.max_epochs", "data.allow_invalid"), "applied"),
    **dict.fromkeys(("training.steps", "training.samples", "training.tokens"), "applied"),
    **dict.fromkeys(("training.extend_to", "training.extend_by"), "applied"),
    **dict.fromkeys(("training.micro_batch_size", "training.recomputation", "training.compile"), "applied"),
    **dict.fromkeys(("training.compile_backend", "training.compile_dynamic"), "applied"),
    **dict.fromkeys(("training.attention_kernel", "training.loss_scale"), "applied"),
    **{f"training.loss_scale.{key}": "applied" for key in ("window", "hysteresis", "minimum")},
    **dict.fromkeys(("family", "why", "parallel", "checkpoint", "logging"), "applied"),
    **dict.fromkeys(("evaluation", "profile", "storage"), "applied"),
}
_RECORDED = ("optimizer", "schedule", "training", "data")
"""sections that decide the numbers of training: what changes there goes on record"""
_LOOKS = 1000  # steps at which courses of the learning rate are compared


def effect_of(key: str) -> Effect:
    """What a change of a key does to a run that is resumed."""
    return _EFFECTS[sorted_in(key) or "why"]


def sorted_in(key: str) -> str | None:
    """The key, or the nearest section above it, of which it is written above what a change does; None for no other."""
    return next((part for part in _sections(key) if part in _EFFECTS), None)


@dataclass(frozen=True)
class Change:
    """A key whose value in a checkpoint is another than now."""

    key: str
    before: Any
    """JSON; lines of text as a tuple"""
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.before)} -> {_shown(self.now)}"


def changes(folder: Path, config: RunConfig) -> list[Change]:
    """What is set otherwise than when a checkpoint was saved, in the configuration's order; keys that did not exist
    then are left out, and so is the run's identity, which is compared by itself.

    Raises:
        TrainyardError: the checkpoint's configuration cannot be read.
    """
    saved, now = read_yaml(folder / CONFIG), config.model_dump()
    for settings in (saved, now):
        training = settings.get("training")
        if isinstance(training, dict) and training.get("loss_scale", 0) is None:  # unset means the defaults
            training["loss_scale"] = LossScaleConfig().model_dump()
    for section, keys in {"training": ("extend_to", "extend_by"), "schedule": ("extensions",)}.items():
        if isinstance(saved.get(section), dict):  # of earlier versions: no run was extended then
            saved[section] |= {key: [] for key in keys if key not in saved[section]}
    return [_in_words(each) for each in _differences("", saved, now) if effect_of(each.key) != "identity"]


def describe_changes(folder: Path, config: RunConfig) -> str:
    """What a resume from a checkpoint goes on with in another way; empty where all is as it was."""
    try:
        found = changes(folder, config)
    except TrainyardError as error:
        return f"whether settings were changed since {folder.name} is not known: {error}"
    return f"changed since {folder.name}: {'; '.join(map(str, found))}" if found else ""


def recorded_changes(newest: SavedStep, config: RunConfig) -> list[ChangeRecord]:
    """What a resume from a checkpoint changes of training, for the record; a jump of the learning rate is one.

    Raises:
        TrainyardError: the checkpoint's configuration cannot be read.
    """
    step = newest.step
    found = [each for each in changes(newest.folder, config) if _decides_numbers(each.key)]
    records = [ChangeRecord(step, each.key, in_json(each.before), in_json(each.now)) for each in found]
    if jump := rate_jump(newest, config):
        records.append(ChangeRecord(step, "learning_rate", *jump))
    return records


def _decides_numbers(key: str) -> bool:
    return key.split(".")[0] in _RECORDED and effect_of(key) != "none"


def second_rate_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """A jump of the rate that Muon steps embeddings, head and vectors at: it is in a fixed proportion to the first."""
    optimizer, key = config.optimizer, "optimizer.rest.learning_rate"
    if not isinstance(optimizer, MuonConfig) or newest.step in (0, config.checkpoint.allow_rate_jump_at):
        return
    try:
        saved = load_resolved(newest.folder / CONFIG).optimizer
    except TrainyardError:
        return  # as in `without_effect`; or of an earlier version
    if not isinstance(saved, MuonConfig):
        return
    before, now = (each.rest.learning_rate / each.learning_rate for each in (saved, optimizer))
    if not isclose(before, now, rel_tol=1e-6):
        yield (
            f"the learning rate of embeddings, head and vectors would jump: {key} is {before:.6g} of "
            f"optimizer.learning_rate in {newest.folder} and {now:.6g} of it now. Restore it; to jump there on "
            f"purpose, add --checkpoint.allow_rate_jump_at {newest.step}"
        )


def without_effect(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """Settings that were changed and would do nothing."""
    try:
        found = changes(newest.folder, config)
    except TrainyardError:
        return  # such a checkpoint is not whole: a resume passes it over, and says so
    for change in found:
        effect = effect_of(change.key)
        if effect == "stored":
            yield (
                f"{change.key} is {_shown(change.before)} in {newest.folder} and {_shown(change.now)} now, which would "
                "do nothing: a resume goes on with the checkpoint's own value. Restore it, or begin a child run "
                "(init_from)"
            )
        elif effect == "rate" and newest.step < config.timetable.steps and not _has_effect(change, newest, config):
            yield (
                f"{change.key} is {_shown(change.before)} in {newest.folder} and {_shown(change.now)} now, which would "
                f"do nothing: {_rates_left(newest.step, config)}. Restore it; to train on at another rate, extend "
                "the run (training.extend_to), or begin a child run (init_from)"
            )


def _rates_left(step: int, config: RunConfig) -> str:
    first, last = config.learning_rate(step + 1), config.learning_rate(config.timetable.steps)
    rates = f"{first:.6g}" if isclose(first, last) else f"{first:.6g} to {last:.6g}"
    return f"in the steps that are left the learning rate is {rates} either way"


def _has_effect(change: Change, newest: SavedStep, config: RunConfig) -> bool:
    """Whether the learning rate is another in a step that is left; or in none of the whole run: it was only said
    otherwise."""
    before = _put_back(change, config)
    if before is None:
        return True  # it is not known how it was
    steps = config.timetable.steps
    ahead = _differ(before, config, newest.step + 1, steps)
    return ahead or not _differ(before, config, 1, newest.step)


def _differ(before: RunConfig, now: RunConfig, first: int, last: int) -> bool:
    looks = {*range(first, last + 1, max(1, (last - first) // _LOOKS)), *([last] if last >= first else [])}
    return any(not isclose(before.learning_rate(step), now.learning_rate(step), rel_tol=1e-9) for step in looks)


def _put_back(change: Change, config: RunConfig) -> RunConfig | None:
    """The configuration as it would be without a change of the learning rate's course; None where that is no course."""
    section, _, key = change.key.partition(".")
    if section == "schedule":
        value = {**config.schedule.model_dump(), key: change.before} if key else change.before
        try:
            return config.model_copy(update={section: TypeAdapter(ScheduleConfig).validate_python(value)})
        except ValidationError:
            return None
    if type(change.before) not in (int, float) or key not in type(config.optimizer).model_fields:
        return None
    return config.model_copy(update={section: config.optimizer.model_copy(update={key: change.before})})


def _differences(prefix: str, saved: Any, now: Any) -> Iterator[Change]:
    """A section of another kind has other keys, and is compared as a whole; so are patterns, whose order counts."""
    sections = isinstance(saved, Mapping) and isinstance(now, Mapping)
    if sections and prefix == "optimizer.weight_decay_by_name":
        if list(saved.items()) != list(now.items()):
            yield Change(prefix, saved, now)
    elif sections and (not prefix or saved.get("name") == now.get("name")):
        for key in now:
            if key in saved:
                yield from _differences(f"{prefix}.{key}" if prefix else key, saved[key], now[key])
    elif saved != now:
        yield Change(prefix, saved, now)


def _in_words(change: Change) -> Change:
    """The same; of changes of sources, which are long, those that differ, a line for each."""
    return Change(change.key, *told_changes(change.before, change.now)) if change.key == "data.changes" else change


def _sections(key: str) -> Iterator[str]:
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):  # lines
        return "; ".join(value) or "none"
    return "null" if value is None else shortened(str(value).lower() if isinstance(value, bool) else value, 60)
