"""A rehearsal: the whole course of a run in a few steps, in a folder of its own. Torch-free.

What lies along the run is drawn together to the rehearsal's steps, in one proportion: its length and extensions,
warm-up, decay and batch ramp, and the intervals of saves, validations and log lines. What a step is (model, data,
batch, micro-batch, layout, precision, optimizer, learning rates, seed) stays as it is, and so does how much one
validation reads.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_patches.artefacts.run_folder import STOPPED, RunFolder, rehearsal_name, rehearsal_of
from megatron_patches.checkout import runs_root
from megatron_patches.configuration.layers import override_layer
from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import ReadRun, from_settings, to_yaml
from megatron_patches.run.timetable import BatchStretch, Timetable
from megatron_patches.sizes import counted
from megatron_patches.training.training_config import BatchRampConfig, TrainingConfig

MOST_SAVES = 4
"""saves at intervals, and validations: a rehearsal that saved in each of its steps would show how fast the disk is"""


def whole_steps(text: str) -> int:
    """What follows `--rehearse`.

    Raises:
        TrainyardError: it is no number of steps.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) > 0):
        raise TrainyardError(f"--rehearse takes a number of steps, 1 or more, and has {text!r}; write --rehearse 20")
    return int(text)


def rehearse(run: ReadRun, steps: int, overrides: Sequence[str] = ()) -> ReadRun:
    """The rehearsal of a run, in so many steps; of a run that is not in order, the run with its problems.

    Copies (`storage`) and Weights & Biases are left out unless `overrides`, the words of the command line, name them.

    Raises:
        TrainyardError: the run does not have more steps than that.
    """
    if run.problems:
        return run
    config = run.config
    if steps >= config.timetable.steps:
        raise TrainyardError(
            f"--rehearse {steps}: {config.name} has {counted(config.timetable.steps, 'step')}, and a rehearsal has "
            f"fewer; use at most {config.timetable.steps - 1}, or start the run itself without --rehearse"
        )
    if steps < len(config.timetable.ends):
        raise TrainyardError(
            f"--rehearse {steps}: {config.name} is extended {counted(len(config.timetable.ends) - 1, 'time')}, and a "
            f"rehearsal has a step of each part; use at least {len(config.timetable.ends)}"
        )
    settings = scaled(config, steps)
    asked = override_layer(overrides, RunConfig).settings
    if "storage" not in asked:
        settings["storage"] = {}
    logging = asked.get("logging")
    if not isinstance(logging, Mapping) or "wandb" not in logging:
        settings["logging"]["wandb"] = None
    return ReadRun(_named(config.name, settings))


def claim(folder: RunFolder) -> None:
    """Makes a rehearsal's folder its own before anything is written there.

    Raises:
        TrainyardError: another rehearsal of the run was started in the same second.
    """
    try:
        folder.path.mkdir(parents=True)
    except FileExistsError:
        if not _stopped(folder):
            raise TrainyardError(
                f"{folder.path} was taken by another rehearsal just now; start this one again, it takes the next"
            ) from None
    except OSError as error:
        raise TrainyardError(
            f"{folder.path}: cannot be made ({error}); export TRAINYARD_RUNS=FOLDER names another place for runs"
        ) from error


def scaled(config: RunConfig, steps: int) -> dict[str, Any]:
    """The settings of a run, every key written out, with what lies along it drawn together to so many steps."""
    settings = config.model_dump()
    share = steps / config.timetable.steps
    training = settings["training"]
    first, *extended = _ends(config, steps)
    training |= {"steps": first, "samples": None, "tokens": None, "extend_to": extended, "extend_by": []}
    training["batch_ramp"] = _ramp(config, steps)
    timetable = Timetable(TrainingConfig.model_validate(training), config.lengths.counted)
    unit = config.schedule.unit
    ends = [each.position(each.ends[0], unit) for each in (config.timetable, timetable)]
    settings["schedule"] = _schedule(settings["schedule"], *ends)
    settings["checkpoint"] = _checkpoint(settings["checkpoint"], share, steps)
    settings["logging"]["every_steps"] = _interval(config.logging.every_steps, share)
    if config.evaluation is not None:
        every = max(_interval(config.evaluation.every_steps, share), -(-steps // MOST_SAVES))
        saved = settings["checkpoint"]["every_steps"]
        # the best are told by a validation of the very step that is saved
        settings["evaluation"]["every_steps"] = saved if config.checkpoint.keep_best else every
    for change, place in zip(settings["data"]["changes"], _changes(config, share, steps), strict=True):
        change["from_step"] = place
    if config.profile is not None:
        profiled = min(config.profile.steps, steps)
        after = min(config.profile.after_step, steps - profiled)
        settings["profile"] |= {"steps": profiled, "after_step": after}
    return settings


def _ends(config: RunConfig, steps: int) -> list[int]:
    """Where the run and its extensions end, in proportion; each part has a step."""
    ends, drawn = config.timetable.ends, [0]
    for left, end in zip(range(len(ends) - 1, -1, -1), ends, strict=True):
        drawn.append(min(max(drawn[-1] + 1, round(end * steps / ends[-1])), steps - left))
    return drawn[1:]


def _changes(config: RunConfig, share: float, steps: int) -> list[int]:
    """Steps of the changes of data, in proportion; each stretch between them has a step.

    Raises:
        TrainyardError: there are too many of them.
    """
    changes = config.data.changes
    if changes and len(changes) >= steps:
        raise TrainyardError(
            f"--rehearse {steps}: the data of {config.name} changes {counted(len(changes), 'time')}; rehearse "
            f"{len(changes) + 1} steps or more"
        )
    places: list[int] = []
    for left, change in zip(range(len(changes), 0, -1), changes, strict=True):
        lowest = places[-1] + 1 if places else 1
        places.append(min(max(lowest, round(change.from_step * share)), steps - left))
    return places


def _interval(every: int, share: float) -> int:
    return max(1, round(every * share))


def _schedule(schedule: Mapping[str, Any], end: int, new_end: int) -> dict[str, Any]:
    """Positions in proportion, each at least 1 where it was given, in the order in which they were."""
    drawn = dict(schedule)
    for key in ("warmup", "decay_end", "decay", "timescale"):
        if drawn.get(key):
            drawn[key] = max(1, round(drawn[key] * new_end / end))
    constant = drawn["name"] in ("constant", "inverse_square_root")
    last = drawn.get("decay_end") or new_end
    drawn["warmup"] = min(drawn["warmup"], last if constant else last - 1)
    if drawn.get("decay"):
        drawn["decay"] = min(drawn["decay"], last - drawn["warmup"])
    if drawn.get("timescale"):
        drawn["timescale"] = max(drawn["timescale"], drawn["warmup"])
    return drawn


def _checkpoint(rules: Mapping[str, Any], share: float, steps: int) -> dict[str, Any]:
    """Intervals in proportion; those that are multiples of each other stay so. Of its checkpoints the last stays."""
    drawn = dict(rules)
    every, old = max(_interval(rules["every_steps"], share), -(-steps // MOST_SAVES)), rules["every_steps"]
    drawn["every_steps"] = every
    drawn["keep_last"] = rules["keep_last"] or 1
    for key in ("keep_every_steps", "weights_every_steps"):
        if rules[key]:
            multiple = rules[key] % old == 0
            drawn[key] = every * min(rules[key] // old, steps // every) if multiple else _interval(rules[key], share)
    if rules["ephemeral_every_steps"]:
        between = min(_interval(rules["ephemeral_every_steps"], share), every - 1)
        drawn["ephemeral_every_steps"] = between or None
    return drawn


def _ramp(config: RunConfig, steps: int) -> dict[str, int] | None:
    """The ramp in its share of the steps, in larger increments where there are fewer steps than sizes."""
    ramp, training = config.training.batch_ramp, config.training
    if ramp is None or steps == 1:  # the one step is of the whole batch, which needs most memory
        return None
    grown = config.timetable.stretches[-1].steps_before
    wanted = min(max(1, round(grown * steps / config.timetable.steps)), steps - 1)
    sizes = (training.global_batch_size - ramp.start) // ramp.increment
    for count in (count for count in range(min(sizes, wanted), 0, -1) if sizes % count == 0):
        increment = ramp.increment * (sizes // count)
        found = _ramp_samples(training, ramp.start, increment, count, wanted)
        if found is not None:
            return {"start": ramp.start, "increment": increment, "samples": found}
    raise AssertionError("a ramp of one size has a step")


def _ramp_samples(training: TrainingConfig, start: int, increment: int, count: int, wanted: int) -> int | None:
    """Samples of the longest ramp of so many sizes that takes the steps wanted at most; None if it leaves one out."""

    def stretches(samples: int) -> list[BatchStretch]:
        ramp = BatchRampConfig(start=start, increment=increment, samples=samples)
        return Timetable(training.model_copy(update={"batch_ramp": ramp}), 1).stretches

    longest = range(1, wanted * training.global_batch_size + 2)
    fitting = bisect_right(longest, wanted, key=lambda samples: stretches(samples)[-1].steps_before)
    return longest[fitting - 1] if fitting and len(stretches(longest[fitting - 1])) == count + 1 else None


def _named(run: str, settings: dict[str, Any]) -> RunConfig:
    """The rehearsal in the next folder of its own; in the newest one where that was stopped to be continued."""
    taken = [path.name for path in runs_root().glob("*") if rehearsal_of(path.name) == run]
    newest = max((int(name.rpartition("-")[2]) for name in taken), default=0)
    if newest:
        config = from_settings({**settings, "name": rehearsal_name(run, newest)}, "the rehearsal")
        if _waits(RunFolder(runs_root() / config.name), config):
            return config
    return from_settings({**settings, "name": rehearsal_name(run, newest + 1)}, "the rehearsal")


def _waits(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a rehearsal was asked to stop, and is the same as this one."""
    try:
        return _stopped(folder) and folder.config.read_text(encoding="utf-8") == to_yaml(config)
    except (OSError, UnicodeDecodeError):
        return False  # what cannot be read is not gone on with


def _stopped(folder: RunFolder) -> bool:
    numbers = [int(path.name) for path in folder.launches.glob("*") if path.name.isdecimal()]
    return bool(numbers) and (folder.launches / f"{max(numbers):04d}" / STOPPED).exists()
