"""Cards of checkpoints that TP2 x PP2 and one process trained and saved: each family, in bf16 and in fp32."""

from pathlib import Path
from typing import Any

import pytest

from megatron_patches.run.config import RunConfig
from tests.megatron_patches.transformers_exchange.checkpoints import FAMILIES, small_run
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "TP2 x PP2": (4, {"parallel__tensor": 2, "parallel__pipeline": 2, "parallel__zero_stage": 1}),
}
STEPS = 2


def train_and_save(configs: dict[str, RunConfig], folder: Path) -> None:
    """On each rank of a layout: two steps of every family, and what a save writes."""
    from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
    from megatron_patches.checkpoint.save import CheckpointContent, write_checkpoint
    from megatron_patches.run.reading import to_yaml
    from tests.small_engine import SmallEngine, groups_of

    groups = groups_of(next(iter(configs.values())))
    for family, config in configs.items():
        small = SmallEngine(config, groups)
        small.train(STEPS)
        identity = {"tokenizer": tokenizer_id(find_tokenizer(Path(config.data.tokenizer)))}
        facts = {
            "run": config.name,
            "launch": "0001",
            "step": STEPS,
            "samples": 16,
            "tokens": 256,
            "identity": identity,
        }
        content = CheckpointContent(STEPS, "0001", facts, {}, to_yaml(config), ())
        if groups.rank == 0:
            (folder / family).mkdir(parents=True)
        write_checkpoint(folder / family, small.engine.state(), content, "full", groups)
        small.batches.close()


def export_all(folder: Path) -> dict[str, dict[str, Any]]:
    """The card of each checkpoint below a folder."""
    import json

    from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers

    cards = {}
    for checkpoint in sorted(folder.glob("*/*/step-*")):
        name = checkpoint.parent.relative_to(folder).as_posix()
        export_transformers(ExportRequest(checkpoint, folder / "exports" / name, format=checkpoint.parent.name))
        cards[name] = json.loads((folder / "exports" / name / "card.json").read_text())
    return cards


@pytest.fixture(scope="module")
def cards(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("layouts")
    for layout, (ranks, settings) in LAYOUTS.items():
        for precision in ("bf16", "fp32"):
            # weights of 0.02 say nearly the same logits for every token, whatever is exported
            given = {**settings, "training__precision": precision, "model__init_std": 0.3}
            place = folder / f"{layout} {precision}"
            configs = {family: small_run(small_data, folder / "runs", family, **given) for family in FAMILIES}
            run_on_ranks(train_and_save, ranks, configs, place)
    return run_on_ranks(export_all, 1, folder)[0]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_card(cards: dict[str, dict[str, Any]], layout: str, precision: str, family: str) -> None:
    card = cards[f"{layout} {precision}/{family}"]
    assert card["model_type"] == family
    assert card["tensors"]["dtype"] == {"bf16": "BF16", "fp32": "F32"}[precision]
    logits, greedy = card["logits"], card["greedy"]
    assert logits["positions"] >= 512 and logits["largest_difference"] <= 1e-4 < 1 < logits["largest_logit"]
    assert logits["equal_argmax"] + logits["near_ties"] == logits["positions"]
    assert greedy["equal"] == greedy["tokens"] or greedy["near_tie"] is not None
