"""Settings of an export that no logits show are what the run says."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.transformers_exchange.card.card import NotEqual
from megatron_patches.transformers_exchange.loaded_settings import compare_settings
from megatron_patches.transformers_exchange.model_description import TokenIds

IDS = TokenIds(bos=3, eos=0, pad=None)
CONFIG = {"model_type": "gpt2", "dtype": "bfloat16", "n_positions": 16, **IDS.as_json()}


def written(folder: Path, config: dict[str, Any], generation: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "generation_config.json").write_text(json.dumps(IDS.as_json() | generation))
    return folder


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gpt_neox", "bloom"])
def test_what_is_written_is_what_is_loaded(model_type: str, tmp_path: Path) -> None:
    length = {"n_positions" if model_type == "gpt2" else "max_position_embeddings": 16} if model_type != "bloom" else {}
    folder = written(tmp_path, {"model_type": model_type, "hidden_size": 64, **length}, {"transformers_version": "5"})
    compare_settings(folder, "bfloat16", 16, IDS)


@pytest.mark.parametrize(
    ("config", "generation", "says"),
    [
        ({"dtype": "float16"}, {}, "dtype is float16, not bfloat16"),
        ({"n_positions": 8}, {}, "positions is 8, not 16"),
        ({"eos_token_id": 1}, {}, "eos_token_id is 1, not 0"),
        ({"pad_token_id": 0}, {}, "pad_token_id is 0, not None"),
        ({}, {"eos_token_id": 5}, "generation is {"),
        ({}, {"do_sample": True, "temperature": 0.5}, "'do_sample': True"),
        ({}, {"forced_bos_token_id": 7}, "'forced_bos_token_id': 7"),
    ],
)
def test_another_setting_is_named(
    config: dict[str, Any], generation: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(NotEqual) as caught:
        compare_settings(written(tmp_path, config, generation), "bfloat16", 16, IDS)
    assert caught.value.check == "settings"
    assert says in str(caught.value)
