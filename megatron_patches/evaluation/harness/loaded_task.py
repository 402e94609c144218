"""A task as lm-eval asks it: its items read, its shots set as the command line sets them; or why it is refused."""

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.models.utils import normalize_gen_kwargs

from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.evaluation.tasks.counterpart import local_counterpart
from megatron_patches.evaluation.tasks.harness_task import resolve
from megatron_patches.evaluation.tasks.loading import load
from megatron_patches.evaluation.tasks.task import HarnessTask, refuse_writing
from megatron_patches.foreign.printable import shortened


class LoadedTask:
    """A task of lm-eval, or a group of them."""

    def __init__(self, task: HarnessTask, found: Mapping[str, Any]) -> None:
        self.found = found
        """as `lm_eval.evaluator.evaluate` takes it"""
        self.tasks: Mapping[str, Task] = found["tasks"]
        """those that hold items, by lm-eval's names"""
        self.name: str = task.config if isinstance(task.config, str) else _own_name(task.config)
        """lm-eval's, of the whole; a tag's stands in none of its results"""

    @property
    def is_divided(self) -> bool:
        """Whether there are members, or one task alone."""
        return self.name not in self.tasks

    @property
    def parts(self) -> dict[str, str]:
        """What each member is called here, by lm-eval's name: without the name of the whole in front."""
        short = {name: self._without_own(name) for name in self.tasks}
        return short if len(set(short.values())) == len(short) else {name: name for name in short}

    def _without_own(self, name: str) -> str:
        last = name.rpartition("::")[2]
        return last.removeprefix(f"{self.name}_") or last

    @property
    def items(self) -> int | None:
        """Items that it has; None where that is not known before they are asked."""
        known = [getattr(each, "task_docs", None) for each in self.tasks.values()]
        counts = [len(each) for each in known if each is not None]
        return sum(counts) if len(counts) == len(known) else None


def refuse_unaskable(task: HarnessTask) -> None:
    """Reads the items of one of the harness's own tasks, to see whether it can be asked at all: before a model is
    exported or loaded for it. Of local files all has been seen.

    Raises:
        TrainyardError: as `load_task`.
    """
    if isinstance(task.config, str):
        _readied(task)


def load_task(task: HarnessTask, model: Any) -> LoadedTask:
    """Reads a task's items, and makes it ready for a model.

    Raises:
        Refused: it runs code; it needs pictures or sound; its dataset is neither in the cache nor to be fetched; it
            takes no shots, and they are asked for; or what it lets the model write does not fit what the model sees.
        TrainyardError: lm-eval cannot load it.
    """
    loaded = _readied(task)
    for each in loaded.tasks.values():
        _refuse_length(task, each, model)
    return loaded


def _readied(task: HarnessTask) -> LoadedTask:
    _refuse_code_of(task)
    loaded = LoadedTask(task, _found(task))
    for each in loaded.tasks.values():
        _refuse(task, each)
        _set_shots(task, each)
    return loaded


def _own_name(config: Mapping[str, Any]) -> str:
    return str(config["group"] if "group" in config else config["task"])


def _refuse_code_of(task: HarnessTask) -> None:
    """Looks before anything is loaded."""
    for config in resolve(task.config).tasks if isinstance(task.config, str) else _configurations(task.config):
        if (config.get("dataset_kwargs") or {}).get("trust_remote_code"):
            raise Refused(f"{task.name} asks for the code of a dataset (trust_remote_code), which is never run here")
        if config.get("unsafe_code"):
            raise Refused(_runs_code(task))


def _configurations(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration, and those of its members."""
    yield config
    members = config.get("task")
    for each in members if isinstance(members, list) else []:
        if isinstance(each, Mapping):
            yield from _configurations(each)


def _runs_code(task: HarnessTask) -> str:
    return (
        f"{task.name} runs code that the model writes (unsafe_code), which is never run here; ask it with "
        "lm-eval itself, in a container: lm_eval --confirm_run_unsafe_code"
    )


def _found(task: HarnessTask) -> Mapping[str, Any]:
    try:
        return load(task)
    except TrainyardError:
        raise
    except Exception as error:  # whatever the code of a thousand tasks raises
        if isinstance(error, OSError) or _is_offline(error):
            raise Refused(_without_data(task, error)) from error
        raise TrainyardError(
            f"lm-eval cannot load {task.name}: {type(error).__name__}: {shortened(error, 300)}"
        ) from error


def _is_offline(error: BaseException | None) -> bool:
    """Whether an error comes from one of the hub's: lm-eval and `datasets` raise others in their place."""
    while error is not None:
        if isinstance(error, OfflineModeIsEnabled | HfHubHTTPError) or "find cache for" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _without_data(task: HarnessTask, error: BaseException) -> str:
    name = task.config if isinstance(task.config, str) else task.name
    dataset = shortened(_dataset_asked_for(error) or "of the task")
    lines = [f"{task.name}: the dataset {dataset} is not in the local cache, and cannot be fetched"]
    lines.append(f"({shortened(' '.join(str(error).split()), 120)})")
    if form := local_counterpart(name):
        lines.append(f"From a local file the same is asked with --tasks {form}")
    lines.append(f"To fill the cache where there is a network: HF_HOME=FOLDER lm_eval --model dummy --tasks {name}")
    lines.append("Then bring FOLDER here, and set HF_HOME to it")
    return "\n".join(lines)


def _dataset_asked_for(error: BaseException) -> str | None:
    """The dataset of the task that was being made when the error came."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = frame.f_locals.get("self")
        if isinstance(made, Task) and made.DATASET_PATH:
            return " ".join(filter(None, (made.DATASET_PATH, made.DATASET_NAME)))
    return None


def _refuse(task: HarnessTask, each: Task) -> None:
    if getattr(each, "UNSAFE_CODE", False):
        raise Refused(_runs_code(task))
    if getattr(each, "MULTIMODAL", False):
        raise Refused(f"{task.name} shows the model pictures or sound, and models here read text; name another task")


def _set_shots(task: HarnessTask, each: Task) -> None:
    """As `simple_evaluate` does it, where an order to a task without shots is passed over in silence."""
    wanted, own = task.settings.shots, each.get_config("num_fewshot")
    if wanted is None:
        each.set_config(key="num_fewshot", value=own or 0)
    elif own == 0 and wanted:
        raise Refused(f"{task.name} takes no shots (its num_fewshot is 0), and {wanted} are asked for; leave them out")
    else:
        each.set_config(key="num_fewshot", value=wanted)
    each.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _refuse_length(task: HarnessTask, each: Task, model: Any) -> None:
    if each.OUTPUT_TYPE != "generate_until":
        return
    written = normalize_gen_kwargs(each.get_config("generation_kwargs") or {}, model.max_gen_toks)["max_gen_toks"]
    refuse_writing(task.name, written, model.max_length)
