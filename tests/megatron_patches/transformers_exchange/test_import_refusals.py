"""Folders of transformers that are not imported: each is refused before work, with the reason and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data_tools.text.tokenizer_training import train_bpe
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.transformers_exchange.import_plan import open_data, plan_import
from tests.megatron_patches.transformers_exchange.folders import write_run
from tests.small_training import SmallData

pytestmark = pytest.mark.slow  # another process makes the folders

RUN = "tr900a-28K-imported"
Spoil = Callable[[Path], object]


def config(**keys: Any) -> Spoil:
    """Change keys of `config.json`; None takes one away."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        changed = {**json.loads(path.read_text()), **keys}
        path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))

    return spoil


def weights(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the tensors."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def pickles_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def another_tokenizer(folder: Path) -> None:
    text = folder / "text.txt"
    text.write_text("zyxw vuts " * 400)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    train_bpe([text], folder / "other", vocab_size=262)
    for file in (folder / "other").glob("tokenizer*.json"):
        file.rename(folder / file.name)


def cut_otherwise(folder: Path) -> None:
    """The same tokens, and a rule that digits stand alone."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    before = tokenizer["pre_tokenizer"]
    digits = {"type": "Split", "pattern": {"Regex": "[a-z ]"}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, before]}
    path.write_text(json.dumps(tokenizer))


CASES: dict[str, tuple[str, Spoil, type[TrainyardError], str]] = {
    "code of its own": ("gpt2", config(auto_map={"AutoModel": "m.M"}), Refused, "auto_map.*code of its own"),
    "pickles alone": ("gpt2", pickles_alone, Refused, "no safetensors.*save_pretrained"),
    "quantized": ("gpt2", config(quantization_config={"bits": 4}), Refused, "is quantized.*that it was made from"),
    "an adapter": (
        "gpt2", lambda folder: (folder / "adapter_config.json").write_text("{}"), Refused, "adapter.*merge_and_unload"
    ),
    "a shard is missing": (
        "shards", lambda folder: next(folder.glob("*-00002-of-*")).unlink(), Missing, "an index names it"
    ),
    "cut off": ("gpt2", cut, Damaged, "model.safetensors: .*fetch or make it again"),
    "an unknown architecture": ("gpt2", config(model_type="mamba"), Refused, "mamba is of no architecture here.*gpt2"),
    "no architecture": ("gpt2", config(model_type=None), Refused, "names no model_type"),
    "scaled positions": (
        "llama", config(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}), Refused, "rope"
    ),
    "a model that cannot be": ("gpt2", config(n_head=5), Refused, "cannot be built: .*not divisible"),
    "another model": ("gpt2", config(n_inner=81), Refused, r"model\.ffn_size is 81 in config.json and 80 in the run"),
    "another kind of positions": (
        "llama", lambda folder: config(**json.loads((folder.parent / "bloom-config.json").read_text()))(folder),
        Refused, r"model\.position_embedding\.name is alibi in config.json and rotary in the run; model.activation",
    ),
    "a tensor is missing": (
        "gpt2", weights(lambda all_of: all_of.pop("transformer.h.1.ln_2.bias")), Refused,
        r"it lacks transformer\.h\.1\.ln_2\.bias.*GPT2LMHeadModel",
    ),
    "a tensor too many": (
        "gpt2", weights(lambda all_of: all_of.update({"score.weight": np.zeros((2, 2), np.float32)})), Refused,
        r"it has, and its model has not, transformer\.score\.weight",
    ),
    "a tied head that differs": (
        "gpt2", weights(lambda all_of: all_of.update({"lm_head.weight": all_of["transformer.wte.weight"] + 1})),
        Refused, r"lm_head\.weight differs from transformer\.wte\.weight.*tie_word_embeddings to false",
    ),
    "another shape": (
        "gpt2", weights(lambda all_of: all_of.update({"transformer.ln_f.bias": np.zeros(47, np.float32)})), Refused,
        r"transformer\.ln_f\.bias has shape 47, not 48",
    ),
    "another type": (
        "gpt2", weights(lambda all_of: all_of.update({"transformer.ln_f.bias": np.zeros(48, np.int32)})), Refused,
        r"has type I32, and weights are F32",
    ),
    "two types": (
        "gpt2", weights(lambda all_of: all_of.update({"transformer.ln_f.bias": np.zeros(48, np.float16)})), Refused,
        r"several types \(F16, F32\)",
    ),
    "another tokenizer": ("gpt2", another_tokenizer, Refused, "ids mean something else"),
    "texts are cut otherwise": ("gpt2", cut_otherwise, Refused, "cuts texts otherwise.*becomes other ids"),
    "no tokenizer": (
        "gpt2", lambda folder: (folder / "tokenizer.json").unlink(), TrainyardError,
        "whether token ids .* is not known.*Copy the files",
    ),
}  # fmt: skip


def run_for(folder: Path, place: Path, data: SmallData) -> RunConfig:
    return load_run(write_run(place / "tr900-tests", RUN, data, folder))


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused(case: str, transformers_folders: Path, small_data: SmallData, tmp_path: Path) -> None:
    family, spoil, kind, said = CASES[case]
    run = run_for(transformers_folders / family, tmp_path, small_data)
    folder = shutil.copytree(transformers_folders / family, tmp_path / family)
    shutil.copy(transformers_folders / "bloom" / "config.json", tmp_path / "bloom-config.json")
    spoil(folder)
    with pytest.raises(kind, match=said):
        plan_import(folder, run, open_data(run))


def test_names_without_their_first_part(transformers_folders: Path, small_data: SmallData, tmp_path: Path) -> None:
    """As GPT-2's on the hub, saved without a head and with masks."""
    run = run_for(transformers_folders / "gpt2", tmp_path, small_data)
    folder = shutil.copytree(transformers_folders / "gpt2", tmp_path / "gpt2")
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): each for name, each in tensors.items()}
    save_file(bare | {"h.0.attn.bias": np.ones((1, 1, 24, 24), np.uint8)}, folder / "model.safetensors")
    plan = plan_import(folder, run, open_data(run))
    assert plan.tensors.keys() == tensors.keys()
    assert (plan.elements, plan.dtypes) == (sum(each.size for each in tensors.values()), "F32")


def test_what_a_run_may_have_otherwise(transformers_folders: Path, small_data: SmallData, tmp_path: Path) -> None:
    """Dropout, initial weights, and numbers of positions and token ids; what is stored has the folder's."""
    path = write_run(tmp_path / "tr900-tests", RUN, small_data, transformers_folders / "gpt2")
    changes = {"hidden_dropout": 0.2, "init_std": "small", "vocab_size": 390, "vocab_multiple": 100}
    settings = [f"--model.{key}={value}" for key, value in changes.items()]
    run = load_run(path, [*settings, "--data.sequence_length=32"])
    stored = plan_import(transformers_folders / "gpt2", run, open_data(run)).config
    shapes = {row.name: row.shape for row in stored.parameters}
    assert shapes["positions.weight"] == (24, 48) and shapes["embedding.tokens.table.weight"] == (384, 48)
    assert getattr(stored.model, "hidden_dropout") == 0.2  # noqa: B009  only a GPT's section has it
