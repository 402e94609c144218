"""Any layout loads any checkpoint: the run goes on as the unbroken one does, and nothing of the state is lost.

The ranks of a layout start twice: once to train, save and go on, once to load what all others have saved.
"""

from functools import cache
from pathlib import Path

import pytest

from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_engine import SAME_IN_FP32, SmallEngine, Steps, groups_of, relative
from tests.small_training import SmallData, overrides
from tests.whole_state import same_state, whole_tensors

SAVED, AFTER = 2, 3  # steps
BATCH = overrides(training__global_batch_size=42, evaluation="null")
MODELS = {
    # gated MLP, grouped heads (TP4: each on two ranks), tied embedding
    "Llama": overrides(
        model__position_embedding="rotary", model__norm="rmsnorm", model__norm_bias="false",
        model__activation="swiglu", model__key_value_heads=2, model__attention_bias="false", model__mlp_bias="false",
    ),
    "BLOOM": overrides(model__position_embedding="alibi", model__embedding_norm="true"),
}  # fmt: skip


def layout(micro: int, zero: int, tensor: int = 1, pipeline: int = 1, sequence: bool = False) -> list[str]:
    return overrides(
        training__micro_batch_size=micro, parallel__zero_stage=zero, parallel__tensor=tensor,
        parallel__pipeline=pipeline, parallel__sequence_parallel=str(sequence).lower(),
    )  # fmt: skip


LAYOUTS = {
    "one": (1, layout(21, 0)),
    "TP4": (4, layout(21, 0, tensor=4)),
    "PP2": (2, layout(21, 0, pipeline=2)),
    "DP2 ZeRO-1": (2, layout(21, 1)),
    "DP2 ZeRO-2": (2, layout(21, 2)),
    "DP3 ZeRO-3": (3, layout(14, 3)),
    "DP7 ZeRO-1": (7, layout(6, 1)),
    "TP2 PP2 ZeRO-1": (4, layout(21, 1, tensor=2, pipeline=2)),
    "TP2 DP2 ZeRO-3 sequence": (4, layout(21, 3, tensor=2, sequence=True)),
}
PAIRS = [
    *(("one", other) for other in LAYOUTS if other != "one"),
    ("DP7 ZeRO-1", "one"), ("DP7 ZeRO-1", "TP2 PP2 ZeRO-1"),
    ("TP4", "DP3 ZeRO-3"), ("TP4", "PP2"),
    ("PP2", "DP7 ZeRO-1"),
    ("DP2 ZeRO-2", "TP4"), ("DP2 ZeRO-1", "DP3 ZeRO-3"),
    ("DP3 ZeRO-3", "TP2 PP2 ZeRO-1"), ("DP3 ZeRO-3", "TP2 DP2 ZeRO-3 sequence"),
    ("TP2 PP2 ZeRO-1", "DP2 ZeRO-1"),
    ("TP2 DP2 ZeRO-3 sequence", "DP3 ZeRO-3"),
]  # fmt: skip


def save(small: SmallEngine, folder: Path) -> None:
    """What the trainer saves, without a trainer."""
    from megatron_patches.checkpoint.save import CheckpointContent, write_checkpoint

    facts = {"step": small.step, "optimizer_steps": int(small.engine.counters()["optimizer_steps"].item())}
    content = CheckpointContent(small.step, "0001", facts, {}, "", ())
    folder.parent.mkdir(parents=True, exist_ok=True)  # a run's folder is there before anything is saved in it
    write_checkpoint(folder, small.engine.state(), content, "full", small.groups)


def train_save_train(configs: dict[str, RunConfig], folder: Path) -> dict[str, Steps]:
    """The steps behind the save, of every model."""
    groups = groups_of(next(iter(configs.values())))
    found = {}
    for model, config in configs.items():
        small = SmallEngine(config, groups)
        small.train(SAVED)
        save(small, folder / model)
        found[model] = small.train(AFTER)
        small.batches.close()
    return found


def load_save_train(
    configs: dict[str, RunConfig], folders: dict[str, Path], again: Path
) -> dict[str, dict[str, Steps]]:
    """Of every source's checkpoint and model: save it again from this layout, and train on."""
    from megatron_patches.checkpoint.resume import load_newest_whole

    groups = groups_of(next(iter(configs.values())))
    found: dict[str, dict[str, Steps]] = {source: {} for source in folders}
    for source, folder in folders.items():
        for model, config in configs.items():
            small = SmallEngine(config, groups)
            loaded = load_newest_whole(folder / model, small.engine.state(), groups, report=lambda *problem: None)
            assert loaded is not None
            small.engine.load_counters({"optimizer_steps": int(loaded.manifest.facts["optimizer_steps"])})  # type: ignore[arg-type]
            small.step = int(loaded.manifest.facts["step"])  # type: ignore[arg-type]
            save(small, again / source / model)
            found[source][model] = small.train(AFTER)
            small.batches.close()
    return found


@pytest.fixture(scope="module")
def moves(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """(what a layout trained behind its save, what another one did that loaded it, their folders)."""
    folder = tmp_path_factory.mktemp("moves")

    def configs(name: str) -> dict[str, RunConfig]:
        _, arguments = LAYOUTS[name]
        return {
            model: small_data.run(folder / name, [*BATCH, *switches, *arguments]) for model, switches in MODELS.items()
        }

    @cache
    def saved(name: str) -> dict[str, Steps]:
        return run_on_ranks(train_save_train, LAYOUTS[name][0], configs(name), folder / "saved" / name)[0]

    @cache
    def loaded(name: str) -> dict[str, dict[str, Steps]]:
        sources = [source for source, target in PAIRS if target == name]
        folders = {source: folder / "saved" / source for source in sources if saved(source)}
        again = folder / "again" / name
        return run_on_ranks(load_save_train, LAYOUTS[name][0], configs(name), folders, again, timeout=240)[0]

    def move(source: str, target: str):  # type: ignore[no-untyped-def]
        return saved(source), loaded(target)[source], folder / "saved" / source, folder / "again" / target / source

    return move


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_another_layout_goes_on(source: str, target: str, moves) -> None:  # type: ignore[no-untyped-def]
    unbroken, continued, first, again = moves(source, target)
    for model in MODELS:
        assert relative(continued[model], unbroken[model]) < SAME_IN_FP32
        name = f"step-{SAVED:010d}"
        assert same_state(first / model / name, again / model / name), f"{model} lost something on the way"


def test_enough_pairs_and_a_state_worth_the_name(moves) -> None:  # type: ignore[no-untyped-def]
    """So that the comparisons above compare something: moments are there, and are not zero."""
    assert len(PAIRS) >= 16
    _, _, first, _ = moves("one", "PP2")
    state = whole_tensors(first / "Llama" / f"step-{SAVED:010d}")
    assert {kind for _, kind in state} == {"weight", "exp_avg", "exp_avg_sq"}
    assert all(values.abs().max() > 0 for (_, kind), values in state.items() if kind == "exp_avg_sq")
