"""What must hold between the sections of a run; each message names the nearest values that work."""

import difflib
from collections.abc import Iterator

from megatron_patches.configuration.fields import kind_name
from megatron_patches.configuration.problems import Problem
from megatron_patches.foreign.printable import shortened
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout_checks import check_layout
from megatron_patches.run.length_checks import check_length
from megatron_patches.run.pattern_checks import check_name_patterns
from megatron_patches.sizes import counted


def check_run(config: RunConfig) -> list[Problem]:
    """The problems that no section can see alone; none for a run that can be laid out and trained.

    Of a model that cannot read the objective's samples nothing more is asked: its parameters may depend on them.
    """
    of_sections = (check_length, _compile, _validation, _best_by, _samples, _data_changes, _profile)
    found = [problem for check in of_sections for problem in check(config)]
    if unread := list(_inputs(config)):
        return [*found, *unread]
    of_model = (_model, check_layout, check_name_patterns)
    return [*found, *(problem for check in of_model for problem in check(config))]


def _compile(config: RunConfig) -> Iterator[Problem]:
    if config.training.compile and config.parallel.zero_stage == 3:
        yield Problem(
            "training.compile",
            "training.compile does not go with parallel.zero_stage 3, which brings and takes away weights between "
            "layers; leave it out, or use zero_stage 2",
        )


def _validation(config: RunConfig) -> Iterator[Problem]:
    if config.evaluation is None and config.data.validation:
        yield Problem(
            "data.validation",
            "data.validation has no effect without evaluation: set evaluation.every_steps and evaluation.samples, or "
            "remove data.validation",
        )
    if config.evaluation and not config.data.validates:
        yield Problem(
            "data.split",
            f"data.split {config.data.split} gives validation no documents but evaluation asks for "
            f"{counted(config.evaluation.samples, 'sample')}; use a split such as 949,50,1, name groups "
            "in data.validation, or set evaluation to null",
        )


def _samples(config: RunConfig) -> Iterator[Problem]:
    """Whether documents can be cut as `data.samples` says, and what that leaves without effect."""
    samples = config.data.samples
    for problem in samples.problems(config.lengths.read):
        yield Problem("data.samples", problem)
    if samples.knows_texts and not getattr(config.objective, "loss_after_end_of_document", True):
        yield Problem(
            "objective.loss_after_end_of_document",
            f"objective.loss_after_end_of_document: false has no effect: in samples of {samples.name} no token "
            "predicts one of another document; remove it",
        )


def _best_by(config: RunConfig) -> Iterator[Problem]:
    """Whether the best checkpoint is told by a group that there is."""
    key, name, known = "checkpoint.best_by", config.checkpoint.best_by, config.data.group_names
    if name is None:
        return
    if config.evaluation is None:
        yield Problem(
            key, f"{key} {shortened(name, 40)} has no effect without evaluation; set evaluation, or remove it"
        )
    elif name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
        told = "nearest" if len(near) < len(known) else "there are" if len(known) > 1 else "there is"
        yield Problem(key, f"{key} {shortened(name, 40)} is no validation group; {told} {', '.join(near)}")


def _data_changes(config: RunConfig) -> Iterator[Problem]:
    """Changes that the run does not come to."""
    late = [each.from_step for each in config.data.changes if each.from_step >= config.timetable.steps > 0]
    if late:
        yield Problem(
            "data.changes",
            f"data.changes from step {late[0]} on has no effect: the run ends with step {config.timetable.steps}; "
            "remove it, or give an earlier step",
        )


def _profile(config: RunConfig) -> Iterator[Problem]:
    profile, steps = config.profile, config.timetable.steps
    if profile is not None and profile.after_step + profile.steps > steps > 0:
        yield Problem(
            "profile",
            f"profile would end at step {profile.after_step + profile.steps} (after_step {profile.after_step} + steps "
            f"{profile.steps}), but the run has {steps}; "
            + (
                f"use profile.after_step {steps - profile.steps} at most"
                if profile.steps <= steps
                else f"use profile.steps {steps} at most, with profile.after_step 0"
            ),
        )


def _inputs(config: RunConfig) -> Iterator[Problem]:
    """Whether the model can read what the objective gives it to read."""
    given, architecture = config.objective.inputs, config.architecture
    missing, unread = architecture.requires - set(given.names), set(given.names) - architecture.requires
    unread -= architecture.accepts
    names = f"objective {kind_name(type(config.objective))} does not go with model {kind_name(type(config.model))}"
    if given.attention not in architecture.patterns:
        yield Problem(
            "objective",
            f"{names}: its tokens see keys by the pattern {given.attention}, and the model's by "
            f"{' or '.join(sorted(architecture.patterns))}; choose another objective.name or model.name",
        )
    elif missing or unread:
        told = [f"the model reads {', '.join(sorted(missing))}, which the objective does not give"] if missing else []
        told += [f"the objective gives {', '.join(sorted(unread))}, which the model does not read"] if unread else []
        yield Problem("objective", f"{names}: {'; '.join(told)}; choose another objective.name or model.name")


def _model(config: RunConfig) -> Iterator[Problem]:
    """What the architecture itself finds; it is asked as one rank of the smallest layout."""
    parallel = config.parallel
    layout = Layout(parallel.tensor, parallel.pipeline, 1, parallel.sequence_parallel)
    yield from config.architecture.problems(config.model, config.workload(layout))
