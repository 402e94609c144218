"""An encoder's updates are the same on every layout, and whether the head makes all logits or those of picked places.

One step of SGD shows gradients as they are; the clip, far below the norm, would show one that acts before the gradients
are divided by the global number of masked tokens. Ranks and micro-batches have different numbers of them.
"""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import run_on_ranks
from tests.second_architecture.run import Trained, record, train_and_stop, train_two_stacks
from tests.small_engine import relative
from tests.small_training import ENCODER, SmallData, overrides

PLAIN = ["--schedule=constant", *overrides(training__global_batch_size=12, training__micro_batch_size=3)]
SGD = ["--optimizer={name: sgd, learning_rate: 10.0, gradient_clip: 0.05}"]
UNTIED = overrides(model__tied_head="false", model__decoder_bias="true", model__vocab_multiple=20)
ALL_LOGITS = overrides(objective__masked_logits_only="false")
MODELS = {"tied": [], "untied": UNTIED}
ZERO = {stage: overrides(parallel__zero_stage=stage) for stage in range(4)}
TP2, PP2 = overrides(parallel__tensor=2), overrides(parallel__pipeline=2)
SHARED = overrides(parallel__sequence_parallel="true")
DROPOUT = overrides(model__hidden_dropout=0.1, model__attention_dropout=0.1)
BF16 = overrides(training__precision="bf16")
BOTH = {f"{model}{', all logits' * whole}": (model, whole) for model in MODELS for whole in (False, True)}
LAYOUTS: dict[str, tuple[int, dict[str, list[str]]]] = {
    # processes, and ways to lay a model out on them
    "one": (1, {"": [*ZERO[0], *overrides(training__micro_batch_size=12)]}),
    "TP2": (2, {"": TP2, "sequence parallel": [*TP2, *SHARED]}),
    "PP2": (2, {"": PP2}),
    "TP2 PP2": (4, {"sequence parallel": [*TP2, *PP2, *SHARED]}),
    "DP2": (2, {f"ZeRO {stage}": ZERO[stage] for stage in range(4)}),
}
BESIDE = {
    "recomputed, none": DROPOUT, "bf16": BF16, "bf16, all logits": [*BF16, *ALL_LOGITS],
    **{f"recomputed, {kind}": [*DROPOUT, *overrides(training__recomputation=kind)] for kind in ("selective", "full")},
}  # fmt: skip
"""what is compared on a layout with itself"""


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """What each rank of a layout saw of each run, by the way it is laid out and the model."""
    folder = tmp_path_factory.mktemp("encoders")

    @cache
    def of_layout(layout: str) -> dict[tuple[str, str], list[Trained]]:
        ranks, ways = LAYOUTS[layout]
        runs = {
            (way, model): [*arguments, *SGD, *MODELS[of], *(ALL_LOGITS if whole else [])]
            for way, arguments in ways.items()
            for model, (of, whole) in BOTH.items()
        }
        if layout in ("one", "PP2"):
            runs |= {("", name): [*LAYOUTS[layout][1][""], *SGD, *more] for name, more in BESIDE.items()}
        configs = [small_data.run(folder, [*ENCODER, *PLAIN, *arguments]) for arguments in runs.values()]
        found = run_on_ranks(record, ranks, configs, 1)
        return {run: [rank[number] for rank in found] for number, run in enumerate(runs)}

    return of_layout


@pytest.mark.parametrize("model", BOTH)
@pytest.mark.parametrize(("layout", "way"), [(layout, way) for layout, (_, ways) in LAYOUTS.items() for way in ways])
def test_an_update_is_the_same(layout: str, way: str, model: str, trained) -> None:  # type: ignore[no-untyped-def]
    """Against a single process that makes all logits; of that process, that it updates every parameter."""
    expected: Trained = trained("one")["", f"{BOTH[model][0]}, all logits"][0]
    whole = {name: numbers for name, _, _, numbers in expected.weights}
    for rank in trained(layout)[way, model]:
        assert relative(rank.steps, expected.steps) < 1e-6
        assert rank.steps[0][1] > 4 * 0.05, "the clip acts"
        assert rank.validation == pytest.approx(expected.validation, rel=2e-6)
        for name, box, start, numbers in rank.weights:
            places = tuple(slice(*each) for each in box.box)
            own = whole[name].reshape(box.global_shape)[places].reshape(-1)[start : start + len(numbers)]
            assert np.abs(numbers - own).max(initial=0.0) < 2e-6 * max(0.1, np.abs(whole[name]).max()), name


def test_ranks_have_different_numbers_of_masked_tokens(small_data: SmallData, tmp_path: Path) -> None:
    """Or a mean of means would pass for a mean."""
    found = run_on_ranks(targets_here, 2, small_data.run(tmp_path, [*ENCODER, *PLAIN, *ZERO[1]]))
    assert found[0] != found[1] and len({*found[0], *found[1]}) > 1


def targets_here(config) -> list[int]:  # type: ignore[no-untyped-def]
    """Masked tokens of each micro-batch of this rank."""
    from tests.small_engine import SmallEngine

    small = SmallEngine(config)
    found = [round((batch.weights.sum() * batch.targets).item()) for batch in small.batches.at(0)]
    small.batches.close()
    return found


@pytest.mark.parametrize("layout", ["one", "PP2"])
def test_recomputation_changes_nothing(layout: str, trained) -> None:  # type: ignore[no-untyped-def]
    none, *others = (
        [rank.steps for rank in trained(layout)["", f"recomputed, {kind}"]] for kind in ("none", "selective", "full")
    )
    assert others == [none, none]


@pytest.mark.parametrize("layout", ["one", "PP2"])
def test_bf16_stays_close(layout: str, trained) -> None:  # type: ignore[no-untyped-def]
    exact = trained("one")["", "tied"][0].steps
    for name in ("bf16", "bf16, all logits"):
        found = trained(layout)["", name][0].steps
        assert found != exact and relative(found, exact) < 2e-2


def test_a_stop_changes_nothing_and_another_layout_goes_on(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a probability that changes on the way, and validations that do not."""
    ramp = ["--objective.probability={start: 0.4, end: 0.2, samples: 60}"]

    def start(runs: str, layout: list[str]) -> Launch:
        monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / runs))
        return start_launch(small_data.run(tmp_path, [*ENCODER, *PLAIN, *ramp, *layout]))

    whole = start("whole", PP2)
    run_on_ranks(train_two_stacks, 2, str(whole.directory))
    stopped = start("stopped", PP2)
    run_on_ranks(train_and_stop, 2, str(stopped.directory), 4)
    assert stopped.stopped.exists()
    shutil.copytree(tmp_path / "stopped", tmp_path / "moved", symlinks=True)
    run_on_ranks(train_two_stacks, 2, str(start("stopped", PP2).directory))
    assert losses(stopped.run) == losses(whole.run)
    assert stored(stopped.run) == stored(whole.run)

    moved = start("moved", TP2)
    run_on_ranks(train_two_stacks, 2, str(moved.directory))
    found, expected = losses(moved.run), losses(whole.run)
    assert len(found) == 8 + 2, "steps and validations"
    assert max(abs(found[event] / expected[event] - 1) for event in expected) < 1e-5


def stored(run: RunFolder) -> dict[str, str]:
    """Hash of every tensor file of the last checkpoint."""
    files = read_manifest(run.checkpoints / "step-0000000008" / "manifest.json").files
    return {file.path: file.sha256 for file in files if file.path.endswith(".safetensors")}


def losses(run: RunFolder) -> dict[tuple[str, int], float]:
    """Losses of steps and validations."""
    events = read_events(run.events)
    return {
        (k, each.facts["step"]): each.facts["loss"] for k in ("step", "validation") for each in effective(events, k)
    }
