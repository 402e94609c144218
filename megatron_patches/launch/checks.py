"""Everything that is looked at before a launch, in the order in which people read of it. Torch-free.

A check is a function of the facts that gives a line for each problem, with its remedy; a new one is named in `CHECKS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from data_tools.wrapped_texts import token_role_problems
from megatron_patches.artefacts.run_folder import folder_problems
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.changed_data import data_behind_problems, replaced_sources
from megatron_patches.checkpoint.changed_settings import second_rate_problems, without_effect
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.checkpoint.other_work import from_scratch_problems, other_work
from megatron_patches.checkpoint.resume_check import identity_problems, learning_rate_problems, length_problems
from megatron_patches.checkpoint.size import space_problems
from megatron_patches.configuration.fields import kind_name
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.device_checks import device_problems
from megatron_patches.launch.facts import LaunchFacts
from megatron_patches.launch.init_from.resolution import without_effect as init_from_without_effect
from megatron_patches.run.layout import batch_ramp_problems, global_batch_problems


def launch_problems(facts: LaunchFacts) -> list[str]:
    """Every problem of a launch, each once; none where it may start.

    A check that lacks a fact ends there, with the fact's own problem; the others go on.
    """
    found: dict[str, None] = {}
    for check in CHECKS:
        try:
            for problem in check(facts):
                found[problem] = None
        except TrainyardError as missing:
            found[str(missing)] = None
    return list(found)


def _configuration(facts: LaunchFacts) -> Iterator[str]:
    yield from facts.run.texts()


def _packages(facts: LaunchFacts) -> Iterator[str]:
    if facts.config.logging.wandb is not None and "wandb" not in facts.machines.packages:
        yield (
            "logging.wandb is set and the package wandb is not installed: pip install -e '.[wandb]', or remove the key"
        )


def _device(facts: LaunchFacts) -> Iterator[str]:
    yield from device_problems(facts.config, facts.machines.gpu, facts.machines.gpu_models)


def _layout(facts: LaunchFacts) -> Iterator[str]:
    layout = facts.layout
    facts.require("training.global_batch_size")
    yield from global_batch_problems(facts.config, layout)


def _batch_ramp(facts: LaunchFacts) -> Iterator[str]:
    facts.require("training.batch_ramp")
    yield from batch_ramp_problems(facts.config, facts.layout, facts.consumed_samples)


def _token_roles(facts: LaunchFacts) -> Iterator[str]:
    facts.require("objective", "data.tokenizer", "data.samples")
    objective = facts.config.objective
    needed = {f"objective {kind_name(type(objective))}": objective.token_roles}
    yield from token_role_problems(facts.config.data, CHECKOUT, needed)


def _document_ends(facts: LaunchFacts) -> Iterator[str]:
    yield from facts.data.end_of_document_problems(facts.config.document_ends_needed_by)


def _vocabulary(facts: LaunchFacts) -> Iterator[str]:
    yield from facts.data.vocabulary_problems(facts.config.model.vocabulary)


def _special_tokens(facts: LaunchFacts) -> Iterator[str]:
    config = facts.config
    special = facts.data.special_tokens(config.objective.token_roles)
    if special is not None and special.vocab_size > config.model.vocabulary:
        yield (
            f"data.tokenizer {config.data.tokenizer} has {special.vocab_size} ids, any of which objective "
            f"{kind_name(type(config.objective))} may put into a sample, and model.vocab_size "
            f"{config.model.vocabulary} has ids up to {config.model.vocabulary - 1}; set model.vocab_size to "
            f"{special.vocab_size} or more"
        )


def _answers(facts: LaunchFacts) -> Iterator[str]:
    yield from facts.data.answer_problems()


def _training_data(facts: LaunchFacts) -> Iterator[str]:
    yield from facts.data.training_problems(facts.training_samples)


def _validation_data(facts: LaunchFacts) -> Iterator[str]:
    facts.require("data.split")
    yield from facts.data.validation_problems(facts.validation_samples)


def _identity(facts: LaunchFacts) -> Iterator[str]:
    if facts.saved:
        wanted = run_identity(
            facts.config, facts.data.identity_for(facts.config.objective.token_roles), facts.data.tokenizer_id
        )
        yield from identity_problems(facts.saved, wanted, facts.config, replaced_sources)


def _length(facts: LaunchFacts) -> Iterator[str]:
    facts.require("training.samples", "training.tokens", "training.extend_to", "training.extend_by")
    if facts.taken:
        yield from length_problems(facts.taken, facts.config)


def _learning_rate(facts: LaunchFacts) -> Iterator[str]:
    facts.require("training.samples", "training.tokens", "training.extend_to", "training.extend_by")
    facts.require("training.batch_ramp", "schedule")
    if facts.taken:
        yield from learning_rate_problems(facts.taken, facts.config)
        yield from second_rate_problems(facts.taken, facts.config)
        yield from without_effect(facts.taken, facts.config)


def _data_behind(facts: LaunchFacts) -> Iterator[str]:
    facts.require("training.samples", "training.tokens", "training.batch_ramp", "data.skip_samples")
    if facts.saved:
        yield from data_behind_problems(facts.saved[0], facts.config)
    if facts.taken and facts.taken is not facts.saved[0]:  # of a damaged one it may not be known what it was trained on
        yield from data_behind_problems(facts.taken, facts.config)


def _run_folder(facts: LaunchFacts) -> Iterator[str]:
    yield from folder_problems(facts.directory)


def _from_scratch(facts: LaunchFacts) -> Iterator[str]:
    if all(each.problems for each in facts.saved):
        run, allowed = facts.directory, facts.config.checkpoint.allow_from_scratch
        start = facts.starting_point
        begins_from = Path(start.weights.folder) if start and not start.pending else None
        found = other_work(run, facts.config.data.allow_invalid, begins_from=begins_from)
        yield from from_scratch_problems(run, found, allowed)


def _init_from(facts: LaunchFacts) -> Iterator[str]:
    if facts.resumes:
        newest = next(each for each in facts.saved if not each.problems)
        yield from init_from_without_effect(newest, facts.config, facts.data)
    elif facts.config.init_from is not None:
        facts.starting_point  # noqa: B018  raises what is wrong with it
    return


def _space(facts: LaunchFacts) -> Iterator[str]:
    yield from space_problems(facts.config, facts.directory.checkpoints, facts.free_space)


CHECKS: tuple[Callable[[LaunchFacts], Iterator[str]], ...] = (
    _configuration,
    _packages,
    _device,
    _layout,
    _batch_ramp,
    _token_roles,
    _document_ends,
    _vocabulary,
    _special_tokens,
    _answers,
    _training_data,
    _validation_data,
    _run_folder,
    _init_from,
    _from_scratch,
    _identity,
    _length,
    _learning_rate,
    _data_behind,
    _space,
)
