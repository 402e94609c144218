"""A task of a command line, made ready to be asked: all that can be refused is refused here."""

from pathlib import Path

from megatron_patches.errors import Missing, Refused
from megatron_patches.evaluation.tasks.all_tasks import Task
from megatron_patches.evaluation.tasks.encoder_tasks import EncoderTask, fine_tuning_task, masked_text_task
from megatron_patches.evaluation.tasks.formats.all_formats import ENCODER_FORMATS, LOCAL_FORMATS
from megatron_patches.evaluation.tasks.formats.glue import GlueFormat
from megatron_patches.evaluation.tasks.formats.local_format import Source
from megatron_patches.evaluation.tasks.harness_task import harness_task
from megatron_patches.evaluation.tasks.local_task import LocalTask, check_shots
from megatron_patches.evaluation.tasks.spec import VALIDATION, TaskSpec
from megatron_patches.evaluation.tasks.task import LossTask, TaskSettings
from megatron_patches.foreign.printable import printable

_LEAST = {"shots": 0, "limit": 1, "length": 2}


def prepare(spec: TaskSpec, settings: TaskSettings) -> Task:
    """Reads and checks all that the task needs.

    Raises:
        Missing: a file is not there.
        Damaged: it is empty, or not of its format.
        Refused: it cannot be asked like this.
        TrainyardError: a row of it is wrong.
    """
    _check_settings(settings)
    if spec.is_loss:
        return _loss(spec, settings)
    if spec.is_of_encoders:
        return _of_encoders(spec, settings)
    return local_task(spec, settings).for_harness() if spec.is_local else harness_task(spec, settings)


def local_task(spec: TaskSpec, settings: TaskSettings) -> LocalTask:
    """The same of a local format.

    Raises:
        TrainyardError: as `prepare`.
    """
    format = LOCAL_FORMATS[spec.word]
    source = _source(spec)
    if source.examples is not None and not format.takes_shots:
        raise Refused(
            f"{spec.name}: {spec.word} is asked without solved items; leave out +{printable(source.examples)}"
        )
    task = LocalTask(spec.name, format, settings, format.read(source))
    if source.examples is not None and not task.shots:
        raise Refused(f"{spec.name}: nothing says how many solved items to show; add --shots, or leave out the file")
    check_shots(task, spec.name)
    return task


def _of_encoders(spec: TaskSpec, settings: TaskSettings) -> EncoderTask:
    format = ENCODER_FORMATS[spec.word]
    if isinstance(format, GlueFormat):
        return fine_tuning_task(spec.name, format, _source(spec), settings)
    return masked_text_task(spec.name, _source(spec), settings)


def _source(spec: TaskSpec) -> Source:
    """The file or folder, and the file of solved items after a plus that is no part of a name."""
    if spec.source is None:
        return Source(None)
    whole = Path(spec.source)
    if whole.exists() or "+" not in spec.source:
        path, examples = whole, None
    else:
        pieces = spec.source.split("+")
        cuts = [("+".join(pieces[:cut]), "+".join(pieces[cut:])) for cut in range(1, len(pieces))]
        first, second = next((cut for cut in cuts if all(map(_exists, cut))), cuts[0])
        path, examples = Path(first), Path(second)
    for each in (path, examples):
        if each is not None and not each.exists():
            raise Missing(f"{spec.name}: {printable(each)} does not exist; check the path")
    return Source(path, examples)


def _exists(name: str) -> bool:
    return bool(name) and Path(name).exists()


def _loss(spec: TaskSpec, settings: TaskSettings) -> LossTask:
    if settings.shots:
        raise Refused(f"{spec.name}: a loss is computed without solved items; leave out --shots")
    if spec.word == VALIDATION:
        return LossTask(spec.name, settings, groups=() if spec.source is None else (spec.source,))
    for ending in (".bin", ".idx"):
        if not Path(f"{spec.source}{ending}").is_file():
            raise Missing(
                f"{spec.name}: {printable(spec.source)}{ending} does not exist; name a dataset by its files without "
                ".bin and .idx"
            )
    return LossTask(spec.name, settings, dataset=spec.source)


def _check_settings(settings: TaskSettings) -> None:
    for name, least in _LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise Refused(f"--{name} {value}: give at least {least}")
