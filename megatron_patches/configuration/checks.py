"""What must hold between the sections of a run; each message names the nearest values that work."""

from collections.abc import Iterator

from data_tools.split import parse_split
from megatron_patches.configuration.fp8_checks import check_fp8
from megatron_patches.configuration.layout_checks import check_layout
from megatron_patches.configuration.length_checks import check_length
from megatron_patches.configuration.name_patterns import check_name_patterns
from megatron_patches.configuration.problems import Problem
from megatron_patches.run_config import RunConfig


def check_run(config: RunConfig) -> list[Problem]:
    """The problems that no section can see alone; none for a run that can be laid out and trained."""
    checks = (
        check_length,
        _compile,
        _attention_kernel,
        _validation,
        _profile,
        _objective,
        check_layout,
        check_fp8,
        check_name_patterns,
    )
    return [problem for check in checks for problem in check(config)]


def _compile(config: RunConfig) -> Iterator[Problem]:
    if config.training.compile and config.parallel.zero_stage == 3:
        yield Problem(
            "training.compile",
            "training.compile does not go with parallel.zero_stage 3, which brings and takes away weights between "
            "layers; leave it out, or use zero_stage 2",
        )


def _attention_kernel(config: RunConfig) -> Iterator[Problem]:
    masked = {
        "model.position_embedding alibi": config.model.position_embedding.name == "alibi",
        "objective prefix_lm": config.objective.name == "prefix_lm",
        "objective.reset_attention": config.objective.reset_attention,
    }
    needing = [what for what, is_so in masked.items() if is_so]
    if config.training.attention_kernel == "flash" and needing:
        yield Problem(
            "training.attention_kernel",
            f"training.attention_kernel flash takes no mask and no bias on a GPU, and {' and '.join(needing)} needs "
            "one; use efficient, math or auto",
        )


def _validation(config: RunConfig) -> Iterator[Problem]:
    if config.evaluation and parse_split(config.data.split)[1] == 0:
        yield Problem(
            "data.split",
            f"data.split {config.data.split} gives validation no documents but evaluation asks for "
            f"{config.evaluation.samples} samples; use a split such as 949,50,1, or evaluation: null",
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


def _objective(config: RunConfig) -> Iterator[Problem]:
    """What a task needs of positions, and positions that count anew where nothing can read that."""
    position, objective = config.model.position_embedding, config.objective
    if objective.name == "prefix_lm" and position.name == "none":
        yield Problem(
            "model.position_embedding",
            "model.position_embedding none leaves objective prefix_lm without the prefix's order: without positions a "
            "token knows its place by what it sees, and in a prefix each sees all; use learned, rotary or alibi",
        )
    if not objective.reset_positions:
        return
    key = "objective.reset_positions"
    if not position.reads_positions:
        yield Problem(
            key, f"{key} has no effect with model.position_embedding {position.name}, which knows distances at most"
        )
    elif objective.reset_attention and position.name == "rotary":
        yield Problem(
            key,
            f"{key} has no effect with rotary positions and objective.reset_attention: within a document distances "
            "stay the same; keep reset_attention alone",
        )
