"""A second architecture is a folder of its own: it trains on every layout, and no product file knows of it.

Two small stacks with cross-attention (`tests/second_architecture`). One table of relative positions is used by every
block of the encoder, on however many stages they are; one table of tokens is used in three places. In fp32 at dropout 0
losses, gradient norms and trained weights agree with the single process.
"""

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.offline.view import view_checkpoint
from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import RankFailed, run_on_ranks
from tests.second_architecture.register import registered
from tests.second_architecture.run import (
    Trained,
    bytes_held,
    record,
    train_and_stop,
    train_two_stacks,
    two_stacks_run,
)
from tests.small_engine import SAME_IN_FP32, relative
from tests.small_training import SmallData, overrides
from tools.commands.checkpoint.show import as_tree

STEPS = 5
LARGE = overrides(training__micro_batch_size=6)
TP2, PP2, PP3 = (
    [*overrides(parallel__tensor=2), *LARGE],
    overrides(parallel__pipeline=2),
    overrides(parallel__pipeline=3),
)
SHARED = overrides(parallel__sequence_parallel="true")
SGD = ["--optimizer={name: sgd, learning_rate: 1.0, momentum: 0.9, weight_decay: 0.01, gradient_clip: 0.05}",
       "--schedule.final_learning_rate=0.1"]  # fmt: skip
MUON = ["--optimizer={name: muon, learning_rate: 1e-2, gradient_clip: 0.05, rest: {learning_rate: 1e-2}}"]
ADAFACTOR = ["--optimizer={name: adafactor, learning_rate: 1e-2, gradient_clip: 0.05}"]
# its second moments are summed over stages; the two shared tables are in groups of their own, which ZeRO steps by turns
APART = ["--optimizer={name: adafactor, learning_rate: 1e-2, weight_decay: 0.1, gradient_clip: 0.05, "
         "weight_decay_by_name: {'relative_bias.*': 0.0}}"]  # fmt: skip
LONG_DECODER = overrides(model__encoder_blocks=1, model__decoder_blocks=3)
LONG_ENCODER = overrides(model__encoder_blocks=3, model__decoder_blocks=1)
DROPOUT = overrides(model__dropout=0.1)
BF16 = overrides(training__precision="bf16")
COMPILED = overrides(training__compile="true", training__compile_backend="aot_eager")  # inductor's C++ takes 40 s
AGAIN = {kind: [*DROPOUT, *overrides(training__recomputation=kind)] for kind in ("none", "selective", "full")}

MODELS = {"adamw": [], "sgd": SGD, "long decoder": [*LONG_DECODER, *SGD], "long encoder": [*LONG_ENCODER, *SGD],
          "muon": MUON, "adafactor": ADAFACTOR, "tables apart": [*LONG_ENCODER, *APART], "bf16": BF16,
          "compiled": COMPILED, **{f"dropout, {kind}": arguments for kind, arguments in AGAIN.items()}}  # fmt: skip
ZERO = {stage: overrides(parallel__zero_stage=stage) for stage in range(4)}
RUNS: dict[str, tuple[int, dict[str, tuple[str, list[str]]]]] = {
    # processes; of each run its model, and how it is laid out
    "one": (1, {name: (name, [*ZERO[0], *overrides(training__micro_batch_size=12)]) for name in MODELS}),
    "TP2": (2, {
        **{name: (name, TP2) for name in ("adamw", "sgd", "bf16", "adafactor")},
        **{f"{name}, sequence parallel": (name, [*TP2, *SHARED])
           for name in ("adamw", "sgd", "dropout, none", "dropout, full")},
    }),
    "PP2": (2, {name: (name, PP2) for name in ("adamw", "sgd", "long decoder", "long encoder", "bf16",
                                               "dropout, none", "dropout, full")}),
    "PP3": (3, {name: (name, PP3) for name in ("adamw", "sgd", "muon", "adafactor")}),
    "TP2 PP2": (4, {"sgd": ("sgd", [*TP2, *PP2]), "adamw, sequence parallel": ("adamw", [*TP2, *PP2, *SHARED])}),
    "PP2 DP2": (4, {name: (name, [*PP2, *ZERO[1]]) for name in ("long encoder", "tables apart")}),
    "DP2": (2, {f"{name}, ZeRO {stage}": (name, [*ZERO[stage], *(LARGE if stage == 3 else [])])
                for stage in (1, 2, 3) for name in ("adamw", "sgd")}),
}  # fmt: skip
EXACT = [(layout, run) for layout, (_, runs) in RUNS.items() if layout != "one" for run, (model, _) in runs.items()
         if model != "bf16" and not model.startswith("dropout")]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """Of this module's tests alone."""
    with registered():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-stacks")


@pytest.fixture(scope="module")
def trained(small_data: SmallData, folder: Path):  # type: ignore[no-untyped-def]
    """What each rank of a layout saw of each of its runs; the processes of a layout live once for all of them."""

    @cache
    def of_layout(layout: str) -> dict[str, list[Trained]]:
        ranks, runs = RUNS[layout]
        configs = [
            two_stacks_run(small_data, folder, [*arguments, *MODELS[model]]) for model, arguments in runs.values()
        ]
        found = run_on_ranks(record, ranks, configs, STEPS, timeout=300)
        return {run: [rank[number] for rank in found] for number, run in enumerate(runs)}

    return of_layout


@pytest.mark.parametrize(("layout", "run"), EXACT, ids=str)
def test_every_layout_trains_alike(layout: str, run: str, trained) -> None:  # type: ignore[no-untyped-def]
    model = RUNS[layout][1][run][0]
    expected: Trained = trained("one")[model][0]
    whole = {name: numbers for name, _, _, numbers in expected.weights}
    for rank in trained(layout)[run]:
        assert relative(rank.steps[:3], expected.steps[:3]) < SAME_IN_FP32
        assert relative(rank.steps[3:], expected.steps[3:]) < 1e-4
        assert rank.validation == pytest.approx(expected.validation, rel=1e-5)
        assert rank.parameters == expected.parameters
        for name, box, start, numbers in rank.weights:
            places = tuple(slice(*each) for each in box.box)
            own = whole[name].reshape(box.global_shape)[places].reshape(-1)[start : start + len(numbers)]
            # Adam makes whole steps of gradients that are all but zero, whose rounding is the processor's: 0.2 % seen
            assert np.abs(numbers - own).max() < 1e-2 * np.abs(whole[name]).max(), name


def test_the_shared_table_is_trained(trained) -> None:  # type: ignore[no-untyped-def]
    """All buckets of all heads; so what the layouts agree in is no gradient of zero."""
    adamw, sgd = (
        next(numbers for name, _, _, numbers in trained("one")[run][0].weights if name == "relative_bias.weight")
        for run in ("adamw", "sgd")
    )
    assert (np.abs(adamw - sgd) > 1e-4).all()


@pytest.mark.parametrize(("kind", "layout"), [("selective", "one"), ("full", "one"), ("full", "TP2"), ("full", "PP2")])
def test_recomputation_changes_nothing(kind: str, layout: str, trained) -> None:  # type: ignore[no-untyped-def]
    """On a pipeline's stage the table has left a later micro-batch's bias when a block is computed again."""
    with_it, without = (
        next(found for run, found in trained(layout).items() if run.startswith(f"dropout, {each}"))
        for each in (kind, "none")
    )
    assert [rank.steps for rank in with_it] == [rank.steps for rank in without]


def test_compiled_blocks_agree(trained) -> None:  # type: ignore[no-untyped-def]
    assert relative(trained("one")["compiled"][0].steps, trained("one")["adamw"][0].steps) < 1e-4


@pytest.mark.parametrize("layout", ["one", "TP2", "PP2"])
def test_bf16_stays_close(layout: str, trained) -> None:  # type: ignore[no-untyped-def]
    found, exact = trained(layout)["bf16"][0].steps, trained("one")["adamw"][0].steps
    assert found != exact
    assert relative([(loss,) for loss, _ in found], [(loss,) for loss, _ in exact]) < 1e-2


def start(config: RunConfig, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    return start_launch(config)


def stored(run: RunFolder) -> dict[str, str]:
    """Hash of every tensor file of the last checkpoint."""
    files = read_manifest(run.checkpoints / "step-0000000008" / "manifest.json").files
    return {file.path: file.sha256 for file in files if file.path.endswith(".safetensors")}


def losses(run: RunFolder) -> dict[int, float]:
    return {event.facts["step"]: event.facts["loss"] for event in effective(read_events(run.events), "step")}


def test_a_stop_changes_nothing_and_another_layout_goes_on(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = two_stacks_run(small_data, tmp_path, PP2)
    whole = start(config, tmp_path / "whole", monkeypatch)
    run_on_ranks(train_two_stacks, 2, str(whole.directory))

    stopped = start(config, tmp_path / "stopped", monkeypatch)
    run_on_ranks(train_and_stop, 2, str(stopped.directory), 4)
    assert stopped.stopped.exists()
    shutil.copytree(tmp_path / "stopped", tmp_path / "moved", symlinks=True)
    run_on_ranks(train_two_stacks, 2, str(start(config, tmp_path / "stopped", monkeypatch).directory))
    assert losses(stopped.run) == losses(whole.run)
    assert stored(stopped.run) == stored(whole.run)

    moved = start(two_stacks_run(small_data, tmp_path, TP2), tmp_path / "moved", monkeypatch)
    run_on_ranks(train_two_stacks, 2, str(moved.directory))
    found, expected = losses(moved.run), losses(whole.run)
    assert len(found) == 8 and max(abs(found[step] / expected[step] - 1) for step in expected) < 1e-5

    last = moved.run.checkpoints / "step-0000000008"
    lines = as_tree(view_checkpoint(last, norms=False), fold=True)
    tree = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert tree == [
        "embedding", "relative_bias", "encoder.layers.0 to encoder.layers.2, 3 alike", "encoder_norm",
        "decoder.layers.0 to decoder.layers.1, 2 alike", "decoder_norm",
    ]  # fmt: skip
    with pytest.raises(RankFailed, match=r"was not trained to continue text \(second half, 75% of a sample encoded\)"):
        run_on_ranks(continue_text, 1, last)


def continue_text(checkpoint: Path) -> None:
    from megatron_patches.generation.loaded_model import load_model
    from tests.second_architecture.register import register_all

    register_all()
    load_model([checkpoint], print)


@pytest.mark.parametrize(
    ("ranks", "arguments"), [(2, ZERO[1]), (2, [*PP2, *ZERO[0]]), (2, [*TP2, *ZERO[0]])], ids=["ZeRO 1", "PP2", "TP2"]
)
def test_memory_is_estimated(ranks: int, arguments: list[str], small_data: SmallData, tmp_path: Path) -> None:
    from megatron_patches.estimate.memory import estimate_memory
    from megatron_patches.run.layout import plan_layout

    sizes = overrides(model__width=128, model__features=512, data__sequence_length=64)
    config = two_stacks_run(small_data, tmp_path, [*sizes, *arguments])
    layout = plan_layout(config, ranks)
    estimate = estimate_memory(config, layout, device="cpu")
    for rank, found in enumerate(run_on_ranks(bytes_held, ranks, config)):
        stage = estimate.stages[layout.coordinates(rank).pipeline]
        assert stage.weights == pytest.approx(found["weights"], rel=0.02)
        assert stage.optimizer == pytest.approx(found["optimizer"], rel=0.02)
        assert stage.total == pytest.approx(found["peak"], rel=0.1)
