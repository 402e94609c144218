"""What transformers takes from the settings of an export and no logits show: the type of the numbers, the length of a
text, the tokens that begin and end one, how it is continued."""

from pathlib import Path
from typing import Any

from megatron_patches.errors import listed
from megatron_patches.foreign.printable import shortened
from megatron_patches.models.interface.transformers_format import Task
from megatron_patches.transformers_exchange.card.card import NotEqual
from megatron_patches.transformers_exchange.model_description import TokenIds

CHECK = "settings"
_WITHOUT_EFFECT = ("transformers_version", "_from_model_config")


def compare_settings(folder: Path, dtype: str, positions: int, ids: TokenIds, task: Task = "text-generation") -> None:
    """Loads `config.json`, and `generation_config.json` of a model that continues texts, as everybody does.

    Args:
        dtype: of the weights, such as `bfloat16`.
        positions: of the model.

    Raises:
        NotEqual: a setting is another, or generation has settings beside the ids.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    found = {
        "dtype": str(config.dtype).removeprefix("torch."),
        "positions": getattr(config, "max_position_embeddings", positions),  # models with ALiBi state none
        **{key: getattr(config, key) for key in ids.as_json()},
    }
    expected = {"dtype": dtype, "positions": positions, **ids.as_json()}
    if task == "text-generation":
        found["generation"] = _generation(folder)
        expected["generation"] = {key: value for key, value in ids.as_json().items() if value is not None}
    if problems := [_told(key, value, expected[key]) for key, value in found.items() if value != expected[key]]:
        raise NotEqual(CHECK, f"of the folder\n{listed(problems)}")


def _generation(folder: Path) -> dict[str, Any]:
    from transformers import GenerationConfig

    given = GenerationConfig.from_pretrained(folder, local_files_only=True).to_diff_dict()
    return {key: value for key, value in given.items() if key not in _WITHOUT_EFFECT}


def _told(key: str, found: Any, expected: Any) -> str:
    return f"{key} is {shortened(found)}, not {shortened(expected)}"
