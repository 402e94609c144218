"""A run that begins with another's weights: each element that is taken, on any layout, and how it trains then."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.run_data import RunData
from data_tools.samples.delivered import delivered_of
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.manifest import build_manifest, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.starting_point import InitialWeights
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.init_from.resolution import find_starting_point
from megatron_patches.launch.plan import Plan, launch, plan_run
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import RankFailed, run_on_ranks
from tests.small_engine import SmallEngine, groups_of
from tests.small_training import SmallData, overrides, train_launch
from tests.whole_state import whole_tensors

EXACT, ROUNDED = "tr900a-28K-exact", "tr900b-28K-rounded"
NEW_TOKENS = 4
VOCABULARY = overrides(model__vocab_size=390, model__vocab_multiple=100)  # 384 are tokens, up to row 399 is padding
UNTIED = [*VOCABULARY, *overrides(model__tied_head="false")]
PARENTS = {
    EXACT: [*UNTIED, *overrides(parallel__tensor=2)],
    ROUNDED: [*VOCABULARY, *overrides(training__precision="bf16", parallel__zero_stage=1)],
}
SHORT = overrides(training__steps=4, checkpoint__every_steps=2, evaluation="null")
TABLES = ("embedding.tokens.table.weight", "head.logits.linear.weight")
Rows = Mapping[str, tuple[tuple[int, int], ...]]


@dataclass(frozen=True)
class Case:
    """A run that begins from a parent, and the rows of tables that it takes where these are not all."""

    parent: str
    settings: list[str]
    rows: Rows = field(default_factory=dict)
    extended: bool = False
    """with a tokenizer of four more tokens"""


MORE = ((0, 384), (388, 400))
LION = overrides(optimizer="{name: lion, learning_rate: 2e-3}", model__tied_head="false", training__seed=11)
MUON = overrides(optimizer="{name: muon, learning_rate: 1e-2, rest: {learning_rate: 1e-2}}", training__seed=11)
CASES = {
    "another optimizer": Case(EXACT, [*VOCABULARY, *LION]),
    "rounded weights of exact ones": Case(EXACT, [*UNTIED, *overrides(training__precision="bf16")]),
    "masters before rounded weights": Case(ROUNDED, VOCABULARY),
    "Muon and masters": Case(ROUNDED, [*VOCABULARY, *MUON, *overrides(training__precision="bf16")]),
    "longer": Case(ROUNDED, [*VOCABULARY, *overrides(data__sequence_length=24)], {"positions.weight": ((0, 16),)}),
    "shorter": Case(ROUNDED, [*VOCABULARY, *overrides(data__sequence_length=8)], {"positions.weight": ((0, 8),)}),
    "padding that becomes tokens": Case(EXACT, UNTIED, dict.fromkeys(TABLES, MORE), extended=True),
    "more rows, and longer": Case(
        EXACT,
        [*UNTIED, *overrides(model__vocab_size=430, data__sequence_length=32, training__seed=5)],
        {**dict.fromkeys(TABLES, MORE), "positions.weight": ((0, 16),)},
        extended=True,
    ),
    "less padding": Case(
        EXACT, [*UNTIED, *overrides(model__vocab_multiple=2)], dict.fromkeys(TABLES, ((0, 390),))
    ),
}  # fmt: skip
LAYOUTS = {
    "one": (1, overrides(parallel__zero_stage=0)),
    "TP2 DP2 ZeRO-1": (4, overrides(parallel__tensor=2, parallel__zero_stage=1)),
    "DP2 ZeRO-3": (2, overrides(parallel__zero_stage=3)),
}
Piece = tuple[str, str, TensorSlice, int, torch.dtype, NDArray[np.float32], NDArray[np.float32]]
"""name, kind, slice, start, type, and its values now and as they were drawn: a rank's tensors end with it"""


@pytest.fixture(scope="module")
def extended(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    """The same texts, by a tokenizer with four more tokens behind the last id."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(small_data.folder / "tokenizer", folder / "tokenizer", ignore=shutil.ignore_patterns("manifest.*"))
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    for number in range(NEW_TOKENS):
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        content["added_tokens"].append({"id": 384 + number, "content": f"abc{number}", **plain})
    path.write_text(json.dumps(content))
    files = sorted((small_data.folder / "documents").iterdir())
    preprocess(PreprocessRequest(files, folder / "text", folder / "tokenizer", append_eod=True))
    return SmallData(folder)


@pytest.fixture(scope="module")
def parents(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with two parents, each trained on two ranks."""
    folder = tmp_path_factory.mktemp("parents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder))
        for name, settings in PARENTS.items():
            config = small_data.run(folder / "yaml", [*settings, *SHORT], name)
            run_on_ranks(train_launch, 2, str(start_launch(config).directory))
    shutil.rmtree(folder / "yaml")
    return folder


@pytest.fixture
def runs(parents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parents where the test may add runs and break things."""
    for name in ("runs", "cache", "data"):
        monkeypatch.setenv(f"TRAINYARD_{name.upper()}", str(tmp_path / name))
    shutil.copytree(parents, tmp_path / "runs")
    return tmp_path / "runs"


def newest(runs: Path, run: str) -> Path:
    return list_checkpoints(RunFolder(runs / run).checkpoints)[0]


def exact_weights(folder: Path) -> dict[str, Tensor]:
    """Masters where there are any, else weights."""
    tensors = whole_tensors(folder)
    return {name: tensors.get((name, "master"), values) for (name, kind), values in tensors.items() if kind == "weight"}


def load_each(jobs: dict[str, tuple[RunConfig, InitialWeights]]) -> dict[str, list[Piece]]:
    """Of each job what this rank holds after loading, with what was drawn before."""
    from megatron_patches.checkpoint.initial_weights import load_initial_weights
    from megatron_patches.parameters.torch_dtypes import PRECISIONS

    groups = groups_of(next(iter(jobs.values()))[0])
    found: dict[str, list[Piece]] = {}
    for name, (config, start) in jobs.items():
        small = SmallEngine(config, replace(groups, dtype=PRECISIONS[config.training.precision]))
        pieces = small.engine.state()
        drawn = [piece.tensor.float().numpy().copy() for piece in pieces]
        load_initial_weights(start, config, pieces, small.groups)
        now = [(piece, piece.tensor.float().numpy().copy()) for piece in small.engine.state()]
        found[name] = [
            (piece.name, piece.kind, piece.slice, piece.start, piece.tensor.dtype, values, before)
            for (piece, values), before in zip(now, drawn, strict=True)
        ]
        small.batches.close()
    return found


@pytest.fixture(scope="module")
def loaded(
    parents: Path, small_data: SmallData, extended: SmallData, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[dict[str, list[Piece]]]]]:
    """By layout, of every rank, the pieces of each case."""
    folder = tmp_path_factory.mktemp("loaded")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "data"):
            patch.setenv(f"TRAINYARD_{name.upper()}", str(folder / name))
        patch.setenv("TRAINYARD_RUNS", str(parents))
        found = {}
        for layout, (ranks, arguments) in LAYOUTS.items():
            jobs = {}
            for name, case in CASES.items():
                data = extended if case.extended else small_data
                config = data.run(folder, [*SHORT, *case.settings, *arguments], "tr900c-28K-child")
                opened = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
                jobs[name] = (config, find_starting_point(case.parent, config, opened).weights)
            found[layout] = run_on_ranks(load_each, ranks, jobs, timeout=60)
        yield found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_element(layout: str, name: str, loaded, parents: Path) -> None:  # type: ignore[no-untyped-def]
    case = CASES[name]
    stored = exact_weights(newest(parents, case.parent))
    compared = 0
    for rank in loaded[layout]:
        for parameter, kind, piece, start, dtype, found, before in rank[name]:
            values, drawn = torch.from_numpy(found), torch.from_numpy(before)
            if kind not in ("weight", "master"):
                assert torch.equal(values, drawn) and not values.any(), "moments begin at zero"
                continue
            expected = expected_elements(stored[parameter], case.rows.get(parameter), piece, start, drawn)
            assert torch.equal(values, expected.to(dtype).float()), (parameter, kind)
            compared += 1
    assert compared >= len(stored)


def expected_elements(
    stored: Tensor, rows: tuple[tuple[int, int], ...] | None, piece: TensorSlice, start: int, drawn: Tensor
) -> Tensor:
    """Elements of a piece: the parent's in these rows, and what was drawn in all others."""
    whole = torch.full(piece.global_shape, torch.nan)
    if rows is None:
        assert stored.shape == whole.shape
    for low, high in rows or ((0, len(stored)),):
        whole[low:high] = stored[low:high].float()
    here = whole[tuple(slice(*each) for each in piece.box)].reshape(-1)[start : start + drawn.numel()]
    return torch.where(here.isnan(), drawn, here)


def test_what_is_compared_differs(parents: Path) -> None:
    """Masters are not their rounded weights, and trained weights not those of a fresh run."""
    tensors = whole_tensors(newest(parents, ROUNDED))
    masters = [name for name, kind in tensors if kind == "master"]
    assert sum(not torch.equal(tensors[each, "master"], tensors[each, "weight"].float()) for each in masters) > 10
    assert {kind for _, kind in whole_tensors(newest(parents, EXACT))} == {"weight", "exp_avg", "exp_avg_sq"}


def begin(data: SmallData, folder: Path, name: str, ranks: int, *settings: str) -> tuple[Plan, Launch]:
    """A run through its launch's checks, trained."""
    planned = planned_run(data, folder, name, *settings)
    started = Launch(Path(launch(planned)["launch_directory"]))
    run_on_ranks(train_launch, ranks, str(started.directory))
    return planned, started


def planned_run(data: SmallData, folder: Path, name: str, *settings: str) -> Plan:
    path = data.write(folder / "tr900-tests", name)
    return plan_run(path, [*VOCABULARY, *SHORT, *settings], LaunchTarget(nodes=None, gpu=False, gpu_models=()))


def train_by_hand(config: RunConfig, weights: dict[str, Tensor]) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step of an engine whose initial weights are written into it."""
    small = SmallEngine(config)
    with torch.no_grad():
        for piece in small.engine.state():
            if piece.kind in ("weight", "master"):
                box = weights[piece.name][tuple(slice(*each) for each in piece.slice.box)].reshape(-1)
                piece.tensor.copy_(box[piece.start : piece.start + piece.tensor.numel()])
    seen = small.train(config.timetable.steps)
    small.batches.close()
    return seen


def steps_of(started: Launch) -> list[tuple[float, float]]:
    return [
        (each.facts["loss"], each.facts["grad_norm"]) for each in effective(read_events(started.run.events), "step")
    ]


def test_it_trains_as_if_the_weights_were_set_by_hand(small_data: SmallData, runs: Path, tmp_path: Path) -> None:
    """A restart on another layout, in another precision and schedule, and a restart of that one."""
    other = overrides(schedule="{name: linear, warmup: 0}", training__seed=11)
    both = overrides(parallel__tensor=2, parallel__pipeline=2, training__precision="bf16")
    first, child = begin(small_data, tmp_path, "tr900c-28K-child", 4, *other, *both, f"--init_from={ROUNDED}")
    by_hand = run_on_ranks(train_by_hand, 4, first.config, exact_weights(newest(runs, ROUNDED)))[0]
    assert steps_of(child) == by_hand

    from_child = [*other, "--init_from=tr900c-28K-child@2"]
    second, grandchild = begin(small_data, tmp_path, "tr900d-28K-grandchild", 1, *from_child)
    middle = child.run.checkpoints / "step-0000000002"
    assert steps_of(grandchild) == run_on_ranks(train_by_hand, 1, second.config, exact_weights(middle))[0]

    line = [newest(runs, ROUNDED), middle, grandchild.run.checkpoints / "step-0000000002"]
    manifests = [read_manifest(folder / "manifest.json") for folder in line]
    for parent, made in pairwise(manifests):
        assert parent.id in made.parents
        assert made.facts["initial_weights"]["id"] == parent.id  # type: ignore[index,call-overload]
        assert (made.facts["optimizer_steps"], made.facts["tokenizer_vocabulary"]) == (2, 384)

    whole = delivered_of(read_manifest(newest(runs, "tr900d-28K-grandchild") / "manifest.json").facts)
    shutil.rmtree(child.run.path)  # what it began from is not needed any more
    shutil.rmtree(grandchild.run.checkpoints / "step-0000000004")
    planned, again = begin(small_data, tmp_path, "tr900d-28K-grandchild", 1, *from_child)
    assert planned.start is None
    assert steps_of(again) == steps_of(grandchild)
    resumed = read_manifest(newest(runs, "tr900d-28K-grandchild") / "manifest.json")
    assert resumed.facts["initial_weights"] == manifests[-1].facts["initial_weights"]
    # what its parents were trained on is not counted
    assert whole is not None and whole == delivered_of(resumed.facts) and whole.samples == resumed.facts["samples"]


def test_a_damaged_byte_is_found_and_nothing_is_trained(small_data: SmallData, runs: Path, tmp_path: Path) -> None:
    path = next(newest(runs, ROUNDED).glob("optimizer-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RankFailed, match=r"tr900c-28K-child cannot begin from .* sha256 .*Nothing was trained"):
        begin(small_data, tmp_path, "tr900c-28K-child", 1, f"--init_from={ROUNDED}@4")
    assert list_checkpoints(runs / "tr900c-28K-child" / "checkpoints") == []
    with pytest.raises(TrainyardError, match="was found damaged when it was read last"):
        planned_run(small_data, tmp_path, "tr900c-28K-child", f"--init_from={ROUNDED}@4")
    planned = planned_run(small_data, tmp_path, "tr900c-28K-child", f"--init_from={ROUNDED}")
    assert planned.start is not None and planned.start.weights.step == 2, "the newest whole one"
    assert "found damaged" in planned.start.lines[1]


def test_one_that_was_replaced_since_the_launch_looked(small_data: SmallData, runs: Path, tmp_path: Path) -> None:
    planned = planned_run(small_data, tmp_path, "tr900c-28K-child", f"--init_from={ROUNDED}@4")
    started = Launch(Path(launch(planned)["launch_directory"]))
    folder = newest(runs, ROUNDED)
    manifest = read_manifest(folder / "manifest.json")
    write_manifest(folder / "manifest.json", build_manifest("checkpoint", manifest.files, {**manifest.facts, "x": 1}))
    with pytest.raises(RankFailed, match=r"was replaced since the launch was planned"):
        run_on_ranks(train_launch, 1, str(started.directory))


def test_a_launch_that_found_nothing_to_begin_from_does_not_draw(
    small_data: SmallData, runs: Path, tmp_path: Path
) -> None:
    planned = planned_run(small_data, tmp_path, "tr900c-28K-child", f"--init_from={ROUNDED}@4")
    with pytest.raises(RankFailed, match="did not look up what init_from"):
        run_on_ranks(train_launch, 1, str(start_launch(planned.config).directory))
