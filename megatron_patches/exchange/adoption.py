"""Another program's checkpoint as one of a run's own, which its next launch continues; or its weights alone, which runs
begin from (`init_from`)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_tools.run_data import RunData
from megatron_patches.artefacts.descent import ORIGIN, origin_of
from megatron_patches.artefacts.folders import DATA_PARENTS, Content, checkpoint_name, list_checkpoints
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.files.state_tensor import StateTensor
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.checkpoint.offline.writing import OfflineContent, write_offline
from megatron_patches.checkpoint.starting_point import TOKENIZER_VOCABULARY
from megatron_patches.checkpoint.tokenizer_files.travelling import read_tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_checkpoint import ReadOptions, read_deepspeed
from megatron_patches.exchange.deepspeed_folder import find_checkpoint_folder, listed
from megatron_patches.exchange.foreign import ForeignCheckpoint
from megatron_patches.exchange.known_source import manifest_beside
from megatron_patches.exchange.matching import Matched, largest_difference, match_tensors
from megatron_patches.exchange.moments import optimizer_differences
from megatron_patches.exchange.naming import found_names, given_names
from megatron_patches.exchange.universal import is_universal, read_universal
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.parameters.name_map import NameMap
from megatron_patches.parameters.name_patterns import is_trained
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.torch_dtypes import PRECISIONS, STORED_NAMES
from megatron_patches.run.config import RunConfig
from megatron_patches.run.moment_table import moment_shapes
from megatron_patches.run.ownership import refuse_living_owner
from megatron_patches.run.progress import Progress
from megatron_patches.run.reading import to_yaml
from megatron_patches.run.run_directory import text_preparation
from megatron_patches.sizes import counted

FILE_BYTES = 4 << 30  # of one file, about: so that many ranks can read and hash a checkpoint together


@dataclass(frozen=True)
class ImportRequest:
    """What to import into which run."""

    folder: Path
    config: RunConfig
    names: str
    """megatron-deepspeed, trainyard, or the path of a YAML"""
    weights_only: bool = False
    at_step: int | None = None
    """count it as this step of the run; None: as the step it says, and weights alone as step 0"""
    average_replicas: bool = False
    trust_pickle: bool = False
    all_names: bool = False
    """of a mismatch tell every name"""
    adopted: Manifest | None = None
    """by which the folder was adopted before"""


@dataclass(frozen=True)
class Imported:
    """What became of it."""

    folder: Path
    format: str
    progress: Progress
    optimizer_steps: int
    parameters: int
    notes: list[str]
    """what goes on otherwise than there"""


def import_checkpoint(request: ImportRequest, run: RunFolder) -> Imported:
    """Put a checkpoint into a run's directory, or an artefact of its weights alone.

    Raises:
        TrainyardError: it cannot be read exactly, is another model's, or the run has checkpoints already or a launch at
            work (weights alone may lie beside them). Nothing is written then.
    """
    config = request.config
    if not request.weights_only:
        refuse_living_owner(run)
        _refuse_checkpoints(run)
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after, texts=text_preparation(config))
    folder = find_checkpoint_folder(request.folder)
    known = manifest_beside(request.folder, folder) or request.adopted
    names = given_names(request.names)
    options = ReadOptions(request.weights_only, request.trust_pickle, names.groups if names else ())
    foreign = _read(folder, options)
    names = names or found_names(config, request.names, foreign, folder)
    matched = match_tensors(foreign.tensors, config, names, request.average_replicas, request.all_names)
    if not request.average_replicas:
        _check_rounding(matched)
    progress = _progress(request, foreign)
    tensors = _own_tensors(matched, request)
    steps = 0 if request.weights_only else _optimizer_steps(config, foreign)
    trainer = json.dumps({"progress": asdict(progress), "callbacks": {}, "engine": {}}, indent=2) + "\n"
    content = OfflineContent(
        facts=_facts(request, foreign, names, progress, steps, data, known),
        trainer=None if request.weights_only else trainer.encode(),
        config=to_yaml(config).encode(),
        parents=(*([known.id] if known else []), *data.dataset_ids, data.tokenizer_id),
        tokenizer=read_tokenizer(CHECKOUT / config.data.tokenizer, data.tokenizer_id),
    )
    target = run.checkpoints / checkpoint_name(progress.step, _content(request))
    whole = sum(tensor.elements * tensor.dtype.itemsize for tensor in tensors)
    write_offline(target, tensors, max(1, whole // FILE_BYTES), content)
    parameters = sum(tensor.elements for tensor in tensors if tensor.kind == "weight")
    notes = [] if request.weights_only else optimizer_differences(config, foreign.optimizer, progress.step)
    return Imported(target, foreign.format, progress, steps, parameters, notes)


def _content(request: ImportRequest) -> Content:
    return "weights" if request.weights_only else "full"


def _read(folder: Path, options: ReadOptions) -> ForeignCheckpoint:
    try:
        return (read_universal if is_universal(folder) else read_deepspeed)(folder, options)
    except TrainyardError:
        raise
    # what is read has another structure, or numbers that cannot be
    except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise TrainyardError(
            f"{printable(folder)} has a file that is not as DeepSpeed writes it ({type(error).__name__}: "
            f"{shortened(error)}); name a folder that DeepSpeed saved, or import it with --weights-only"
        ) from error


def _refuse_checkpoints(run: RunFolder) -> None:
    there = list_checkpoints(run.checkpoints)
    if there:
        raise TrainyardError(
            f"{run.path} has checkpoints already, the newest {there[0].name}: a launch continues the newest. Begin a "
            "new run (tools/runs new), or move them away"
        )


def _check_rounding(matched: Matched) -> None:
    """A weight is its master, rounded: where it is not, shares of the optimizer's state are in the wrong places."""
    for (name, kind), weight in matched.items():
        master = matched.get((name, "master"))
        if kind != "weight" or master is None:
            continue
        difference = largest_difference(weight, master)
        if difference != 0:
            raise TrainyardError(
                f"the weight of {name} and its fp32 master in the optimizer's state differ by up to {difference:.3g} "
                "after rounding: files of different saves are mixed, or are not those of the ranks they are named "
                "for. Copy the checkpoint again, or import it with --weights-only"
            )


def _progress(request: ImportRequest, foreign: ForeignCheckpoint) -> Progress:
    """Where the run is to continue; its own timetable says what it has consumed there."""
    config, theirs = request.config, foreign.progress
    step = request.at_step
    if step is None:
        step = 0 if request.weights_only else theirs.step
    if step is None:
        raise TrainyardError(f"{request.folder} does not say at which step it was saved; add --at-step N")
    if step > config.timetable.steps:
        raise TrainyardError(
            f"step {step} is beyond the end of {config.name}, which has {counted(config.timetable.steps, 'step')}; "
            "raise training.steps, or choose with --at-step where it continues"
        )
    progress = config.timetable.after(step)
    if request.at_step is None and step:
        _check_consumed(progress, foreign, config)
    return progress


def _check_consumed(progress: Progress, foreign: ForeignCheckpoint, config: RunConfig) -> None:
    for what, theirs in (("samples", foreign.progress.samples), ("tokens", foreign.progress.tokens)):
        ours = getattr(progress, what)
        if theirs and theirs != ours:
            raise TrainyardError(
                f"at step {progress.step} they had consumed {theirs:,} {what}, {config.name} would have {ours:,}; make "
                "training.global_batch_size, training.batch_ramp and data.sequence_length theirs, or say with "
                "--at-step as which of this run's steps it counts"
            )


def _optimizer_steps(config: RunConfig, foreign: ForeignCheckpoint) -> int:
    if foreign.optimizer_steps is None:
        if config.optimizer.name in ("sgd", "lion"):  # whose update does not depend on it
            return 0
        raise TrainyardError(
            "the checkpoint does not say how many updates its moments come from (step), without which Adam corrects "
            "them wrongly; import it with --weights-only"
        )
    return foreign.optimizer_steps


def _own_tensors(matched: Matched, request: ImportRequest) -> list[StateTensor]:
    """What a checkpoint of the run holds: weights in its precision, masters beside rounded ones, moments.

    Where rounded weights are all there is, they are the masters too. Weights alone keep their type, since runs of
    any precision begin from them.
    """
    config = request.config
    if request.weights_only:
        return [_exact_weight(matched, row) for row in config.parameters]
    precision = PRECISIONS[config.training.precision]
    rows = config.parameters
    _check_moments(matched, rows, config)
    made: list[StateTensor] = []
    for row in rows:
        exact = matched.get((row.name, "master")) or matched[row.name, "weight"]
        made.append(replace(exact, kind="weight", dtype=precision))
        if not is_trained(config.training, row.name):
            continue
        if precision != torch.float32 and exact.dtype == torch.float32:
            made.append(replace(exact, kind="master", dtype=torch.float32))
        for kind in moment_shapes(config, row):
            made.append(replace(matched[row.name, kind], dtype=torch.float32))
    return made


def _exact_weight(matched: Matched, row: ParameterRow) -> StateTensor:
    exact = matched.get((row.name, "master")) or matched[row.name, "weight"]
    return replace(exact, kind="weight", dtype=exact.dtype if exact.dtype in STORED_NAMES else torch.float32)


def _check_moments(matched: Matched, rows: Sequence[ParameterRow], config: RunConfig) -> None:
    """Exactly the moments that the run's optimizer continues from, of exactly the parameters that it trains."""
    wanted = {
        (row.name, kind) for row in rows if is_trained(config.training, row.name) for kind in moment_shapes(config, row)
    }
    found = {(name, kind) for name, kind in matched if kind not in ("weight", "master")}
    missing = [f"{kind} of {name}" for name, kind in sorted(wanted - found)]
    missing += [
        f"fp32 master of {name}" for name in sorted({name for name, _ in wanted}) if not _is_exact(name, matched)
    ]
    extra = [f"{kind} of {name}" for name, kind in sorted(found - wanted)]
    if missing or extra:
        told = [f"it lacks {listed(missing)}"] if missing else []
        told += [f"it has {listed(extra)}, which {config.name} does not train or keep"] if extra else []
        raise TrainyardError(
            f"the optimizer's state does not fit optimizer.name {config.optimizer.name} and what is trained: "
            f"{'; '.join(told)}. Change optimizer, training.trainable or training.frozen, or import with --weights-only"
        )


def _is_exact(name: str, matched: Matched) -> bool:
    return (name, "master") in matched or matched[name, "weight"].dtype == torch.float32


def _facts(
    request: ImportRequest,
    foreign: ForeignCheckpoint,
    names: NameMap,
    progress: Progress,
    steps: int,
    data: RunData,
    known: Manifest | None,
) -> dict[str, Any]:
    """As a save of the run writes them, and where it came from."""
    config = request.config
    facts = {
        "run": config.name,
        "launch": "import",
        **asdict(progress),
        "reason": "import",
        "content": _content(request),
        "learning_rate": config.learning_rate(progress.step),
        "next_learning_rate": config.learning_rate(progress.step + 1),
        "optimizer_steps": steps,
        "seed": config.training.seed,
        "layout": foreign.layout,
        "identity": run_identity(config, data.identity_for(config.objective.token_roles), data.tokenizer_id),
        DATA_PARENTS: len(data.dataset_ids) + 1,
        TOKENIZER_VOCABULARY: data.tokenizer_vocabulary,
        "source": {
            "format": foreign.format,
            "folder": request.folder.resolve().name,
            "names": names.title,
            "weights_only": request.weights_only,
            "averaged_replicas": request.average_replicas,
            **asdict(foreign.progress),
        },
    }
    return facts | ({ORIGIN: origin_of(known)} if known else {})
