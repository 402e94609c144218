"""The page of an export: front matter that the hub reads, facts, and text of others that stays text."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_patches.artefacts.manifest import build_manifest
from megatron_patches.transformers_exchange.card.card import Card, GreedyFigures, LogitFigures, TensorFigures
from megatron_patches.transformers_exchange.model_card import model_card
from tests.megatron_patches.transformers_exchange.checkpoints import small_run
from tests.small_training import SmallData

HOSTILE = "# <script>x</script> | ---\n# [link](http://x) `code` \x1b[2J"
CARD = Card(
    command="tools/export-hf x", date="2026-01-01T00:00:00+00:00", commit=None, versions={}, source="a" * 64,
    model_type="gpt2", class_name="GPT2LMHeadModel", text=HOSTILE, text_sha256="b" * 64, by_block=False,
    tensors=TensorFigures(ours=3, theirs=3, filled=0, ignored=0, elements=10, dtype="BF16"),
    logits=LogitFigures(
        positions=512, vocabulary=384, largest_difference=1e-6, largest_logit=4.0, equal_argmax=512, near_ties=0
    ),
    greedy=GreedyFigures(prompt=8, tokens=32, equal=32, near_tie=None),
)  # fmt: skip


def page(data: SmallData, folder: Path, notes: tuple[str, ...] = (), **facts: Any) -> str:
    config = small_run(data, folder).model_copy(update={"why": HOSTILE})
    told: dict[str, Any] = {"run": config.name, "step": 1200, "samples": 9600, "tokens": 1_228_800, "data_parents": 3}
    saved = build_manifest("checkpoint", [], told | facts, ("p" * 64, "d" * 64, "e" * 64, "t" * 64))
    return model_card(config, saved, CARD, "stored", notes, "text-generation")


def test_the_hub_reads_the_front_matter(small_data: SmallData, tmp_path: Path) -> None:
    _, front, rest = page(small_data, tmp_path).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["trainyard", "gpt2"],
    }  # fmt: skip
    from huggingface_hub import ModelCard

    assert ModelCard(f"---\n{front}---\n{rest}").data.library_name == "transformers"


def test_it_says_what_the_model_is_and_came_from(small_data: SmallData, tmp_path: Path) -> None:
    origin = {"id": "f" * 64, "run": "tr1a-parent", "step": 3000}
    text = page(small_data, tmp_path, ("16 ids stand for no text",), validation_loss=2.5, origin=origin)
    for line in (
        "# tr900a-28K-small, step 1,200",
        "| tokens | 1,228,800 |",
        "| samples | 9,600 |",
        "| loss on validation | 2.5000 nats per token |",
        "| weights | BF16, as the run trained with them |",
        "Note: 16 ids stand for no text.",
        "| data | 1 | `text` |",
        f"Ids of datasets: `{'d' * 64}`, `{'e' * 64}`.",
        f"Id of the tokenizer: `{'t' * 64}`.",
        f"| began with | `tr1a-parent`, step 3,000, `{'f' * 64}` |",
        "| batch | 8 samples of 16 tokens |",
    ):
        assert line in text.splitlines(), line
    for line in CARD.told()[:4]:
        assert f"- {' '.join(line.split())}" in text
    assert str(small_data.folder) not in text, "a path of this machine"


@pytest.mark.parametrize(
    "facts", [{}, {"run": HOSTILE, "origin": {"run": HOSTILE, "id": HOSTILE}, "layout": {HOSTILE: HOSTILE}}]
)
def test_text_of_others_stays_text(facts: dict[str, Any], small_data: SmallData, tmp_path: Path) -> None:
    text = page(small_data, tmp_path, (HOSTILE,), **facts)
    assert "<script>" not in "".join(text.split("``")[::2]), "outside of spans of code"
    assert "\x1b" not in text
    assert text.count("\n---\n") == 1, "the end of the front matter"
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# tr900a-28K-small, step 1,200", "## Loading", "## Data", "## Training", "## Lineage", "## Proof",
    ]  # fmt: skip


@pytest.mark.parametrize("facts", [{"step": "many", "tokens": -1, "data_parents": 2**70, "layout": [1], "origin": 5}])
def test_odd_facts_are_no_reason_to_fail(facts: dict[str, Any], small_data: SmallData, tmp_path: Path) -> None:
    assert "| tokens | not on record |" in page(small_data, tmp_path, **facts)
