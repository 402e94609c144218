"""Folders of transformers: `config.json`, the index of shards, headers of weights, and what stands in their place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.errors import TrainyardError
from megatron_patches.transformers_exchange.foreign_model import ForeignModel, is_transformers_folder
from megatron_patches.transformers_exchange.foreign_model import read_foreign_model as read
from megatron_patches.transformers_exchange.shown_folder import shown_folder
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_bytes, odd_entries, odd_json

NewPlace = Callable[[], Place]
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "n_inner": None, "n_positions": 16, "vocab_size": 9},
    {"model_type": "bloom", "n_layer": 2, "n_embed": 8, "num_attention_heads": 2, "vocab_size": 9},
    {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "head_dim": 4, "rope_parameters": _ROTARY},
    {"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2, "rotary_pct": 0.5, "rope_scaling": None},
]
_INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}


def _tensor(name: str) -> bytes:
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def _folder(place: Place, shards: bool) -> Path:
    (place.inside / "config.json").write_text(json.dumps(CONFIGS[0]))
    if shards:
        (place.inside / "model.safetensors.index.json").write_text(json.dumps(_INDEX))
        for name in "ab":
            (place.inside / f"{name}.safetensors").write_bytes(_tensor(name))
    else:
        (place.inside / "model.safetensors").write_bytes(_tensor("a"))
    return place.inside


def _tried(place: Place) -> ForeignModel | TrainyardError:
    attempt(lambda: is_transformers_folder(place.inside))
    attempt(lambda: shown_folder(place.inside))
    place.check()
    return attempt(lambda: read(place.inside))


def test_the_folders_that_are_damaged_below_are_read(new_place: NewPlace) -> None:
    for shards in (False, True):
        _folder(place := new_place(), shards)
        found = _tried(place)
        assert isinstance(found, ForeignModel) and list(found.folder.tensors) == ["a", "b"][: 1 + shards]


@cases(200)
@given(data=st.data())
def test_a_configuration(new_place: NewPlace, data: st.DataObject) -> None:
    folder = _folder(place := new_place(), False)
    (folder / "config.json").write_bytes(data.draw(odd_json(data.draw(st.sampled_from(CONFIGS)))))
    found = _tried(place)
    assert isinstance(found, TrainyardError) or found.model.vocabulary > 0


@cases(80)
@given(data=st.data())
def test_an_index(new_place: NewPlace, data: st.DataObject) -> None:
    folder = _folder(place := new_place(), True)
    (folder / "model.safetensors.index.json").write_bytes(data.draw(odd_json(_INDEX)))
    found = _tried(place)
    if isinstance(found, ForeignModel):
        assert all(each.file.parent == folder for each in found.folder.tensors.values())


@cases(60)
@given(data=st.data())
def test_weights(new_place: NewPlace, data: st.DataObject) -> None:
    folder = _folder(place := new_place(), False)
    content = data.draw(odd_bytes(_tensor("a")))
    (folder / "model.safetensors").write_bytes(content)
    found = _tried(place)
    if isinstance(found, ForeignModel):
        assert sum(each.size for each in found.folder.tensors.values()) < len(content)


@cases(60)
@given(data=st.data())
def test_what_stands_where_a_file_is_expected(new_place: NewPlace, data: st.DataObject) -> None:
    folder = _folder(place := new_place(), data.draw(st.booleans()))
    data.draw(odd_entries())(place, folder / data.draw(st.sampled_from(sorted(each.name for each in folder.iterdir()))))
    _tried(place)
