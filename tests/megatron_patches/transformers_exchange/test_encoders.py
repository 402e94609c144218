"""Encoders go to transformers and come back: settings, tokenizer, page, and the same numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.errors import Refused
from megatron_patches.objectives.objective_config import CausalConfig
from megatron_patches.transformers_exchange.choice import choose_format
from tests.megatron_patches.transformers_exchange.checkpoints import save_random
from tests.megatron_patches.transformers_exchange.masked_data import VOCABULARY, masked_data
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

SIZES = f"layers: 2, hidden_size: 32, attention_heads: 4, ffn_size: 64, vocab_size: {VOCABULARY}"
ENCODER = [f"--model={{name: encoder, {SIZES}}}", "--objective.name=masked_lm"]
POST_NORM = "--model.norm_placement=post"


def there_and_back(place: Path, data: SmallData) -> dict[str, Any]:
    """An export of an encoder, what transformers makes of it, and its import into the run that it came from."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

    from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors
    from megatron_patches.run.run_directory import run_directory
    from megatron_patches.transformers_exchange.card.ours import our_model
    from megatron_patches.transformers_exchange.card.source import open_source
    from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers
    from megatron_patches.transformers_exchange.import_plan import open_data, plan_import
    from megatron_patches.transformers_exchange.importing import CardRequest, import_transformers
    from tests.megatron_patches.transformers_exchange.checkpoints import manifest_of

    os.environ |= {f"TRAINYARD_{name}": str(place / name.lower()) for name in ("RUNS", "CACHE", "DATA")}
    own = masked_data(place / "data", data)
    settings = ["--model.decoder_bias=true", "--model.mlp_bias=true", "--data.samples={name: packs, wrapped: true}"]
    config = own.run(place, [*ENCODER, *settings])
    checkpoint = save_random(place / "saved", config)
    made = export_transformers(ExportRequest(checkpoint, place / "out", command="tools/export-hf"))
    model, info = AutoModelForMaskedLM.from_pretrained(place / "out", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(place / "out")
    ids = torch.tensor([[5, 300, 384, 90, 41, 5]])
    with torch.no_grad():
        theirs = model.eval()(ids).logits[0]
    source = open_source(checkpoint, manifest_of(checkpoint))
    with our_model(source, config, by_block=False) as our:
        (ours,) = next(our.logits(ids, [torch.arange(6)]))
    plan = plan_import(place / "out", config, open_data(config))
    target = run_directory(config).checkpoints / "weights-0000000000"
    back = import_transformers(plan, target, CardRequest("a test"))
    weights = {each.name: each for each in stored_tensors(back.folder, back.manifest)}
    rows = {row.name: row.row_for_each == "vocabulary" for row in config.parameters}
    returned = open_source(back.folder, back.manifest)
    return {
        "theirs": theirs.tolist(), "ours": ours.tolist(),
        "unused": {key: sorted(map(str, each)) for key, each in info.items() if key != "error_msgs"},
        "card": made.card, "back": back.card, "names": sorted(weights),
        "equal": {
            name: torch.equal(source.read(name)[: VOCABULARY if of_ids else None], returned.read(name))
            for name, of_ids in rows.items()
        },
        "mask": (tokenizer.mask_token, tokenizer.mask_token_id, tokenizer.padding_side, tokenizer.pad_token_id),
        "wrapped": tokenizer("a word")["input_ids"],
        "filled": len(pipeline("fill-mask", str(place / "out"))("a word [MASK], and another one")),
        "files": sorted(path.name for path in (place / "out").iterdir()),
        "config": json.loads((place / "out" / "config.json").read_text()),
        "page": (place / "out" / "README.md").read_text(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def exported(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_on_ranks(there_and_back, 1, tmp_path_factory.mktemp("encoders"), small_data)[0]


@pytest.mark.slow
def test_an_export_of_an_encoder_says_the_same(exported: dict[str, Any]) -> None:
    import torch

    theirs = torch.tensor(exported["theirs"])
    torch.testing.assert_close(theirs, torch.tensor(exported["ours"]), rtol=0, atol=1e-4)
    assert theirs.shape == (6, VOCABULARY)
    assert theirs.std() > 0.5
    assert not any(exported["unused"].values())
    assert exported["card"].model_type == "eurobert"


@pytest.mark.slow
def test_its_settings_and_its_tokenizer_have_the_roles(exported: dict[str, Any]) -> None:
    config = exported["config"]
    roles = {key: value for key, value in config.items() if key.endswith("_token_id")}
    assert roles == {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 385, "mask_token_id": 384}
    assert (config["intermediate_size"], config["vocab_size"]) == (48, VOCABULARY)
    assert (config["tie_word_embeddings"], config["mlp_bias"]) == (True, True)
    assert exported["mask"] == ("[MASK]", 384, "right", 385)
    assert exported["filled"] == 5
    assert (exported["wrapped"][0], exported["wrapped"][-1]) == (386, 387)
    assert "generation_config.json" not in exported["files"]


@pytest.mark.slow
def test_its_page_says_how_masks_are_filled_in(exported: dict[str, Any]) -> None:
    page = exported["page"]
    assert "pipeline_tag: fill-mask" in page
    assert "AutoModelForMaskedLM" in page and "generate" not in page
    for line in exported["card"].told()[:5]:
        assert f"- {' '.join(line.split())}" in page


@pytest.mark.slow
def test_it_comes_back_bit_for_bit(exported: dict[str, Any]) -> None:
    assert all(exported["equal"].values())
    assert sorted(exported["equal"]) == exported["names"]
    assert exported["back"].masked is not None and exported["back"].padding is not None


def test_what_eurobert_has_not_is_refused_with_its_key(small_data: SmallData, tmp_path: Path) -> None:
    own = small_data.run(tmp_path, [*ENCODER, POST_NORM, "--model.position_embedding=learned"])
    with pytest.raises(Refused) as error:
        choose_format(own)
    assert "model.norm_placement post: it takes pre" in str(error.value)
    assert "model.position_embedding learned: it takes rotary" in str(error.value)


def test_an_encoder_is_no_other_kind_of_model(small_data: SmallData, tmp_path: Path) -> None:
    own = small_data.run(tmp_path, ENCODER)
    assert choose_format(own).model_type == "eurobert"
    with pytest.raises(Refused, match="format llama: this run's architecture can become eurobert"):
        choose_format(own, "llama")
    causal = own.model_copy(update={"objective": CausalConfig(name="causal")})
    with pytest.raises(Refused, match="EuroBertForMaskedLM fills in masked tokens, and this run was not trained to"):
        choose_format(causal)


def test_a_run_without_a_mask_token_is_refused(small_data: SmallData, tmp_path: Path) -> None:
    from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers

    checkpoint = save_random(tmp_path / "runs", small_data.run(tmp_path, ENCODER))
    with pytest.raises(Refused, match=r"the tokenizer names no mask_token that the model knows; name it in"):
        export_transformers(ExportRequest(checkpoint, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
