"""Promise 5: every key of a run does something. Each is shown here; a key that neither `switches.py` nor
`encoder_switches.py` lists fails.

What must differ is the numbers of training, what the ranks hold, what the plan says, or what a launch writes.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from megatron_patches.artefacts.chosen import best
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.artefacts.storage.transfer import Options
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.configuration.fields import kind_name, section_models
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchFacts, LaunchTarget
from megatron_patches.launch.plan import plan_run, summary
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run, read_run
from megatron_patches.run.run_directory import start_launch
from tests.encoder_switches import ENCODER_CASES
from tests.ranks import run_on_ranks
from tests.small_artefacts import make_checkpoint
from tests.small_engine import SmallEngine, groups_of, record_steps
from tests.small_run import SMALL_RUN, write_run
from tests.small_training import SmallData, train_launch
from tests.switches import BASE, STEPS, Copies, Holds, Plans, Refuses, Resumes, Trains, Writes
from tests.switches import CASES as OTHERS
from tools.commands.runs.choices import choices_of
from tools.commands.sync_to_hub.due import due_tasks
from tools.commands.sync_to_hub.items import items_of, loose_files

CASES = OTHERS | ENCODER_CASES


def run_file(small_data: SmallData, folder: Path, given: list[str]) -> tuple[Path, list[str]]:
    """The small run's file and its overrides; `NAME=` and `FAMILY=` say where the file lies."""
    place = dict(word.split("=", 1) for word in given if not word.startswith("--"))
    settings = [word.replace("$DATA", str(small_data.folder)) for word in given if word.startswith("--")]
    path = small_data.write(folder / place.get("FAMILY", "tr900-tests"), place.get("NAME", "tr900a-28K-small"))
    return path, [*BASE, *settings]


def configure(small_data: SmallData, folder: Path, given: list[str]) -> RunConfig:
    """The small run with overrides."""
    path, settings = run_file(small_data, folder, given)
    return load_run(path, settings)


def leaf_keys() -> list[str]:
    """Every key that holds a value, the kind's name in front of the keys of a section with several kinds."""
    return [key for key, _ in leaf_fields()]


def leaf_fields(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The same with their fields."""
    for name, info in model.model_fields.items():
        sections = section_models(info)
        if not sections:
            yield prefix + name, info
        for section in sections:
            kind = f"{kind_name(section)}." if len(sections) > 1 else ""
            yield from leaf_fields(section, f"{prefix}{name}.{kind}")


def test_every_key_is_listed() -> None:
    keys = leaf_keys()
    assert sorted({key.partition("=")[0] for key in CASES}) == sorted(keys)
    assert len(keys) > 100


def test_every_value_of_a_few_is_listed() -> None:
    few = {key: values for key, values in choices().items() if len(values) > 2}
    assert len(few) > 5
    for key, values in few.items():
        listed = {case.partition("=")[2] for case in CASES if case.partition("=")[0] == key}
        assert len(set(values) - listed) <= 1, f"{key}: {set(values) - listed} have no case"
        assert listed <= {*values, ""}, key


def choices() -> dict[str, list[str]]:
    """The words and numbers that a key can be one of, by leaf key."""
    return {key: choices_of(field) for key, field in leaf_fields() if choices_of(field)}


@pytest.fixture(scope="module")
def numbers(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every run of a `Trains` case comes to, by its overrides; all of them train in one process."""
    given = {repr(each): each for case in CASES.values() if isinstance(case, Trains) for each in runs_of(case)}
    folder = tmp_path_factory.mktemp("runs")
    configs = {key: configure(small_data, folder, each) for key, each in given.items()}
    return run_on_ranks(train_each, 1, configs, timeout=300)[0]


def runs_of(case: Trains) -> list[list[str]]:
    """Overrides without and with the change; a change of one key is laid over the base."""
    return [case.base, [*case.base, *case.change]]


def train_each(configs: dict[str, RunConfig]) -> dict[str, Any]:
    """Losses and gradient norms of each run, or the error that it ended with; runs of one precision share groups."""
    from megatron_patches.parallel.process_groups import stop_process_groups

    found: dict[str, Any] = {}
    for _, runs in groupby(sorted(configs.items(), key=_precision), key=_precision):
        groups = None
        for key, config in runs:
            groups = groups or groups_of(config)
            try:
                found[key] = record_steps(config, min(STEPS, config.timetable.steps), groups)
            except Exception as error:  # noqa: BLE001  one run's error is its own case's failure
                found[key] = f"{type(error).__name__}: {error}"
        stop_process_groups()
    return found


def _precision(run: tuple[str, RunConfig]) -> str:
    return run[1].training.precision


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Trains)])
def test_a_key_changes_the_numbers(key: str, numbers: dict[str, Any]) -> None:
    case = CASES[key]
    assert isinstance(case, Trains)
    before, after = (numbers[repr(each)] for each in runs_of(case))
    assert isinstance(before, list), before
    assert isinstance(after, list), after
    assert all(isfinite(number) for step in [*before, *after] for number in step)
    assert before != after
    assert len(before) >= 2


def measure_holdings(config: RunConfig) -> dict[str, Any]:
    """What this rank holds after some steps, and what a forward pass keeps for the backward pass."""
    import torch
    from torch import Tensor

    from megatron_patches.objectives.read_ahead import NAME

    kept, compiled, gradients, early = 0, 0, 0, 0
    compilers: set[tuple[tuple[str, Any], ...]] = set()

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    def count_compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        nonlocal compiled
        compiled += 1
        compilers.add(tuple(options.items()))
        return function

    def counted_backward(*arguments: Any, **options: Any) -> None:
        """What lies with the weights between two micro-batches: shares of it are DeepSpeed's own."""
        nonlocal gradients
        backward(*arguments, **options)
        parameters = small.engine.parameters.values()  # type: ignore[attr-defined]
        held = [getattr(each, place, None) for each in parameters for place in ("grad", "grad_accum")]
        gradients = max(gradients, sum(gradient.nbytes for gradient in held if gradient is not None))

    def counted_all_reduce(*arguments: Any, async_op: bool = False, **options: Any) -> Any:
        nonlocal early
        early += async_op
        return all_reduce(*arguments, async_op=async_op, **options)

    all_reduce, torch.distributed.all_reduce = torch.distributed.all_reduce, counted_all_reduce
    torch.compile = count_compiled  # type: ignore[assignment]
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        small = SmallEngine(config)
        backward = getattr(small.engine.deepspeed, "backward", None)  # type: ignore[attr-defined]
        small.engine.deepspeed.backward = counted_backward  # type: ignore[attr-defined]
        reads = note_reads()
        small.train(1)
        read_at_first = len(reads)
        small.train(STEPS - 1)
    torch.distributed.all_reduce = all_reduce
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]
    small.batches.close()
    pieces = small.engine.state()
    return {
        "gradient bytes": gradients,
        "parameters": sorted({piece.name for piece in pieces}),
        "weight bytes": sum(piece.tensor.nbytes for piece in pieces if piece.kind == "weight"),
        "optimizer bytes": sum(piece.tensor.nbytes for piece in pieces if piece.kind != "weight"),
        "loss scale": {
            name: counter.item() for name, counter in small.engine.counters().items() if name != "optimizer_steps"
        },
        "saved bytes": kept,
        "compiled blocks": compiled,
        "compiler": sorted(compilers),
        "early messages": early,
        "reading threads": len(threads),
        "steps read at first": read_at_first,
    }


def note_reads() -> list[int]:
    """The steps that are read from now on, as they are ordered."""
    from megatron_patches.objectives.read_ahead import ReadAhead

    noted: list[int] = []
    order = ReadAhead.order

    def note(self: ReadAhead[Any, Any], step: int) -> Any:
        noted.append(step)
        return order(self, step)

    ReadAhead.order = note  # type: ignore[method-assign]
    return noted


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What runs that several cases compare with came to, so that each is started once."""
    return {}


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Holds)])
def test_a_key_changes_what_ranks_hold(key: str, small_data: SmallData, tmp_path: Path, seen: dict[str, Any]) -> None:
    case = CASES[key]
    assert isinstance(case, Holds)

    def found(ranks: int, given: list[str]) -> dict[str, Any]:
        run = f"{ranks} ranks hold {given}"
        if run not in seen:
            seen[run] = run_on_ranks(measure_holdings, ranks, configure(small_data, tmp_path, given))[0]
        return seen[run]

    before, after = found(case.ranks[0], case.base), found(case.ranks[1], [*case.base, *case.change])
    assert before[case.what] != after[case.what]


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Plans)])
def test_a_key_changes_the_plan(
    key: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    case = CASES[key]
    assert isinstance(case, Plans)

    def said(given: list[str]) -> str:
        try:
            return summary(plan_run(*run_file(small_data, tmp_path, given), LaunchTarget(case.nodes)))
        except TrainyardError as error:
            return str(error)

    assert case.text in said([*case.base, *case.change])
    assert case.text not in said(case.base)


def launch_and_look(small_data: SmallData, folder: Path, given: list[str]) -> dict[str, Any]:
    """What a launch has left behind."""
    launch = start_launch(configure(small_data, folder, given))
    asked, reads = run_on_ranks(train_and_tell_wandb, 1, str(launch.directory))[0]
    lines = (launch.run.logs / f"{launch.id}.log").read_text().splitlines()
    events = read_events(launch.run.events)
    return {
        "saves": [event.facts["folder"] for event in events if event.kind == "checkpoint"],
        "messages": [event.facts["text"] for event in events if event.kind == "message"],
        "files": sorted(path.name for path in launch.run.checkpoints.iterdir()),
        "log": [line.split(" ")[1] for line in lines if " loss " in line and " norm " in line],
        "validations": [
            (event.facts["step"], event.facts["validation_samples"]) for event in effective(events, "validation")
        ],
        "losses": [(event.facts["source"], event.facts["loss"]) for event in effective(events, "validation")],
        "best": _best(launch.run),
        "data": [event.facts["validation"] for event in events if event.kind == "data"],
        "profiles": [(event.facts["first_step"], event.facts["step"]) for event in events if event.kind == "profile"],
        "wandb": asked,
        "reads": reads,
    }


def _best(run: RunFolder) -> tuple[str, float] | None:
    """Group and loss of the best checkpoint; None where none was validated."""
    try:
        found = best(run)
    except Missing:
        return None
    return found.group, found.loss


def train_and_tell_wandb(launch_directory: str) -> tuple[list[dict[str, Any]], list[int]]:
    """Train; what Weights & Biases was asked for, and the steps that were read, by the samples before them."""
    import wandb

    asked: list[dict[str, Any]] = []
    start = wandb.init

    def listen(**options: Any) -> Any:
        asked.append({key: options[key] for key in ("project", "group", "mode")})
        return start(**{**options, "mode": "disabled"})

    wandb.init = listen  # type: ignore[assignment]
    reads = note_reads()
    train_launch(launch_directory)
    return asked, reads


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Writes)])
def test_a_key_changes_what_a_launch_leaves(
    key: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]
) -> None:
    case = CASES[key]
    assert isinstance(case, Writes)
    found = []
    for number, given in enumerate((case.base, [*case.base, *case.change])):
        monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / str(number)))
        if (run := f"a launch with {given}") not in seen:
            seen[run] = launch_and_look(small_data, tmp_path, given)
        found.append(seen[run][case.what])
    assert found[0] != found[1]


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Refuses)])
def test_a_key_takes_nothing_else(key: str, small_data: SmallData, tmp_path: Path) -> None:
    case = CASES[key]
    assert isinstance(case, Refuses)
    with pytest.raises(TrainyardError, match=re.escape(case.text)):
        configure(small_data, tmp_path, case.change)


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Resumes)])
def test_a_key_changes_what_is_resumed(
    key: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    case = CASES[key]
    assert isinstance(case, Resumes)
    path, settings = run_file(small_data, tmp_path, [])
    facts = LaunchFacts(read_run(path, settings), LaunchTarget(None))
    identity = run_identity(
        facts.config, facts.data.identity_for(facts.config.objective.token_roles), facts.data.tokenizer_id
    )
    rates = {"learning_rate": facts.config.learning_rate(3), "next_learning_rate": facts.config.learning_rate(4)}
    make_checkpoint(tmp_path / "runs", 3, identity=identity, **rates)
    with pytest.raises(TrainyardError, match=case.text):
        plan_run(path, [*settings, *case.base], LaunchTarget(None))
    plan_run(path, [*settings, *case.base, *case.change], LaunchTarget(None))


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if isinstance(case, Copies)])
def test_a_key_changes_what_is_copied(key: str, tmp_path: Path) -> None:
    case = CASES[key]
    assert isinstance(case, Copies)
    run = write_copied_run(tmp_path)

    def due(settings: dict[str, object]) -> list[tuple[str, str]]:
        location = json.dumps({"to": "file:///somewhere", **settings})
        run.write_text(f"{SMALL_RUN}storage: {{locations: [{location}]}}\n")
        tasks, problems = due_tasks(tmp_path, tmp_path / "runs", [run.stem], Options())
        assert problems == []
        found = [(str(task.location), item.name) for task in tasks for item in items_of(task.run_folder, task.choice)]
        return found + [("", name) for task in tasks for name in loose_files(task.run_folder, task.choice)]

    before, after = due(case.base), due({**case.base, **case.change})
    assert before
    assert before != after


def write_copied_run(folder: Path) -> Path:
    """A run with checkpoints of steps 10 (pinned), 20 and 30, and a log; the path of its YAML."""
    path = write_run(folder / "train" / "tr900-tests" / "tr900a-28K-small.yaml")
    for step in (10, 20, 30):
        make_checkpoint(folder / "runs", step, run=path.stem)
    (folder / "runs" / path.stem / "checkpoints" / "step-0000000010" / "pinned.json").write_text("{}")
    (folder / "runs" / path.stem / "logs").mkdir()
    (folder / "runs" / path.stem / "logs" / "0001.log").write_text("step 1\n")
    return path
