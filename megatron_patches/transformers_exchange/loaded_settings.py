"""What transformers takes from the settings of an export and no logits show: the type of the numbers, the length of a
text, the tokens that begin and end one, how it is continued."""

from pathlib import Path
from typing import Any

from megatron_patches.errors import listed
from megatron_patches.foreign.printable import shortened
from megatron_patches.transformers_exchange.card.card import NotEqual
from megatron_patches.transformers_exchange.model_description import TokenIds

CHECK = "settings"
_WITHOUT_EFFECT = ("transformers_version", "_from_model_config")


def compare_settings(folder: Path, dtype: str, positions: int, ids: TokenIds) -> None:
    """Loads `config.json` and `generation_config.json` as everybody does.

    Args:
        dtype: of the weights, such as `bfloat16`.
        positions: of the model.

    Raises:
        NotEqual: a setting is another, or generation has settings beside the ids.
    """
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    generation = GenerationConfig.from_pretrained(folder, local_files_only=True).to_diff_dict()
    wanted = {key: value for key, value in ids.as_json().items() if value is not None}
    steering = {key: value for key, value in generation.items() if key not in _WITHOUT_EFFECT}
    found = {
        "dtype": str(config.dtype).removeprefix("torch."),
        "positions": getattr(config, "max_position_embeddings", positions),  # models with ALiBi state none
        **{key: getattr(config, key) for key in ids.as_json()},
        "generation": steering,
    }
    expected = {"dtype": dtype, "positions": positions, **ids.as_json(), "generation": wanted}
    if problems := [_told(key, value, expected[key]) for key, value in found.items() if value != expected[key]]:
        raise NotEqual(CHECK, f"of the folder\n{listed(problems)}")


def _told(key: str, found: Any, expected: Any) -> str:
    return f"{key} is {shortened(found)}, not {shortened(expected)}"
