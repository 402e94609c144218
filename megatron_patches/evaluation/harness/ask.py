"""Tasks asked by lm-eval, with the numbers that its command line gives for the same files, to the last digit.

Each task is asked alone, in the order given, from the seeds of `lm_eval --tasks TASK`. What the command line does
around that (a look at git, at the machine, at the hub for the model) is left out; none of it touches a number.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from megatron_patches.artefacts.evaluations.result import Through
from megatron_patches.errors import Refused
from megatron_patches.evaluation.harness.loaded_task import LoadedTask, load_task, refuse_unaskable
from megatron_patches.evaluation.harness.measured import measured
from megatron_patches.evaluation.harness.surroundings import (
    as_seeded,
    hub_if_reached,
    local_files_alone,
    overflow_is_infinite,
    quiet,
)
from megatron_patches.evaluation.tasks.outcome import Outcome
from megatron_patches.evaluation.tasks.task import HarnessTask
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.sizes import counted

_LIBRARIES = ("lm-eval", "transformers", "torch", "datasets")


def ask(
    model: LM, tasks: Sequence[HarnessTask], through: Through, batch_size: int | None, hear: Callable[[str], None]
) -> Iterator[Outcome]:
    """What a model answers to each task, one after the other.

    Args:
        model: of `load_export`, or an `EngineModel`.
        batch_size: texts that the model reads at once; None leaves it as it was made.
        hear: told of each phase in a few words, and of lm-eval's warnings; nothing else reaches the terminal.

    Raises:
        Refused: a task runs code; its dataset is neither in the cache nor to be fetched; an ending is longer than what
            the model sees; or what is asked for does not suit it. Tasks before it have been given.
        Damaged: the model's log-likelihoods are no numbers.
        TrainyardError: lm-eval cannot load a task.
    """
    if batch_size is not None:
        model.batch_size_per_gpu = batch_size
    for task in tasks:
        yield _asked(model, task, through, hear)


def look_for_items(task: HarnessTask, hear: Callable[[str], None]) -> None:
    """Finds out, before there is a model, whether a task of the harness's own can be asked.

    Raises:
        TrainyardError: as `ask`.
    """
    with quiet(hear), hub_if_reached(), as_seeded():
        refuse_unaskable(task)


def _asked(model: Any, task: HarnessTask, through: Through, hear: Callable[[str], None]) -> Outcome:
    began = time.monotonic()
    surroundings = hub_if_reached() if isinstance(task.config, str) else local_files_alone()
    with quiet(hear) as heard, surroundings, as_seeded(), overflow_is_infinite():
        heard(f"{task.label}: reading its items")
        loaded = load_task(task, model)
        heard(f"{task.label}: {_counted(task, loaded)}")
        results = _results(model, task, loaded)
        found = measured(task, loaded, results, model, heard)
    return Outcome(
        task=task,
        through=through,
        version=task.version,
        definition=task.definition,
        shots=max(each.get_config("num_fewshot") or 0 for each in loaded.tasks.values()),
        examples=len(found.items),
        metrics=found.metrics,
        seconds=time.monotonic() - began,
        parts=found.parts,
        items=found.items,
        data=task.data,
        versions={name: version(name) for name in _LIBRARIES},
        precision=_precision(model),
    )


def _counted(task: HarnessTask, loaded: LoadedTask) -> str:
    limit, members = task.settings.limit, len(loaded.tasks)
    divided = f" in {members:,} parts" if loaded.is_divided else ""
    if limit is not None:
        return f"asking up to {counted(limit, 'item')}{f' of each of {members:,} parts' if divided else ''}"
    return f"asking {counted(loaded.items, 'item')}{divided}" if loaded.items is not None else f"asking{divided}"


def _results(model: Any, task: HarnessTask, loaded: LoadedTask) -> Mapping[str, Any]:
    """The arguments are those of the command line's own call."""
    try:
        results = evaluate(
            lm=model,
            task_dict=loaded.found,
            limit=task.settings.limit,
            bootstrap_iters=100_000,
            log_samples=True,
            system_instruction=None,
            apply_chat_template=False,
            fewshot_as_multiturn=False,
        )
    except AssertionError as error:  # a model's only word on what it cannot predict
        if traceback.extract_tb(error.__traceback__)[-1].name != "_loglikelihood_tokens":
            raise
        raise Refused(
            f"{task.name} has an ending without tokens, or with more than the {model.max_length:,} that the model sees "
            "at once; give a longer --length where the model's positions allow it, or leave the task out"
        ) from error
    assert results is not None  # on the first rank alone, and a model of several ranks has one
    return results


def _precision(model: Any) -> str | None:
    """In which the model computes."""
    if hasattr(model, "precision"):
        return str(model.precision)
    return next((name for name, dtype in PRECISIONS.items() if dtype == model.model.dtype), None)
