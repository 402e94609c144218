"""Whether a run's patterns of parameter names choose anything. Torch-free."""

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from megatron_patches.configuration.problems import Problem
from megatron_patches.parameters.name_patterns import decay_by_name, fits_any, is_trained
from megatron_patches.parameters.row import of_any_block
from megatron_patches.run.config import RunConfig


def check_name_patterns(config: RunConfig) -> Iterator[Problem]:
    """Patterns and decays that change nothing, and patterns that leave nothing to train."""
    table = config.parameters
    names = [row.name for row in table]
    training, optimizer = config.training, config.optimizer
    trained = [row for row in table if is_trained(training, row.name)]
    chosen = [name for name in names if fits_any(name, training.trainable)]
    yield from _idle_patterns("training.trainable", training.trainable, names, names)
    yield from _idle_patterns("training.frozen", training.frozen, names, chosen)
    decays = optimizer.weight_decay_by_name
    yield from _idle_patterns("optimizer.weight_decay_by_name", decays, names, [row.name for row in trained])
    yield from _shadowed_patterns("optimizer.weight_decay_by_name", list(decays), [row.name for row in trained])
    if not trained:
        yield Problem(
            "training.trainable",
            f"nothing is left to train: training.trainable {training.trainable} without training.frozen "
            f"{training.frozen} fits none of the {len(names)} parameters; widen trainable, or shorten frozen",
        )
        return
    matrices = [row for row in trained if row.matrix]
    if optimizer.name == "muon" and not any(row.stack for row in matrices):
        yield Problem(
            "optimizer.name",
            "optimizer.name muon steps the matrices inside blocks, and training.trainable and training.frozen leave "
            "none of them to train; use adamw",
        )
    if optimizer.weight_decay and not any(decay_by_name(decays, row.name) is None for row in matrices):
        reason = "weight_decay_by_name says another for all that are trained" if matrices else "none of them is trained"
        yield Problem(
            "optimizer.weight_decay",
            f"optimizer.weight_decay {optimizer.weight_decay:g} has no effect: it is for matrices and tables, and "
            f"{reason}; set optimizer.weight_decay to 0",
        )


def _idle_patterns(key: str, patterns: Iterable[str], names: list[str], affected: list[str]) -> Iterator[Problem]:
    """Patterns that fit no parameter, and those that fit none of the parameters that the key could affect.

    Where there are none of these at all, another key is wrong.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            yield Problem(key, _fits_nothing(key, pattern, names))
        elif affected and not any(fnmatchcase(name, pattern) for name in affected):
            yield Problem(
                key,
                f"{key}: the pattern {pattern} has no effect: nothing that it fits is left to train by "
                f"{'training.trainable' if key == 'training.frozen' else 'training.trainable and training.frozen'}; "
                "remove it",
            )


def _shadowed_patterns(key: str, patterns: list[str], names: list[str]) -> Iterator[Problem]:
    """Patterns of which each name is one of a later pattern too: of those the last counts."""
    for number, pattern in enumerate(patterns, start=1):
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        behind = [each for each in patterns[number:] if any(fnmatchcase(name, each) for name in fitting)]
        if fitting and all(fits_any(name, behind) for name in fitting):
            yield Problem(
                key,
                f"{key}: the pattern {pattern} has no effect: all that it fits is fitted by {' and '.join(behind)} "
                "behind it, and the last pattern that fits counts; put it last, or remove it",
            )


def _fits_nothing(key: str, pattern: str, names: list[str]) -> str:
    """The names offered stand for those of all blocks, which differ in their numbers."""
    kinds = list(dict.fromkeys(map(of_any_block, names)))
    nearest = difflib.get_close_matches(pattern, kinds, n=3, cutoff=0.4) or kinds[:3]
    return f"{key}: the pattern {pattern} fits no parameter; nearest: {', '.join(nearest)}"
