"""Folders of transformers, read strictly: whole ones, and what is said of odd ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.transformers_exchange.card.folder import INDEX_FILE, WEIGHTS_FILE, open_folder

SHARDS = {"model-00001-of-00002.safetensors": ["a"], "model-00002-of-00002.safetensors": ["b", "c"]}


def weights(path: Path, *names: str, dtype: str = "F32", width: int = 4) -> None:
    """A file of tensors of shape (2, 3) whose bytes count up."""
    entries = {
        name: {"dtype": dtype, "shape": [2, 3], "data_offsets": [6 * width * at, 6 * width * (at + 1)]}
        for at, name in enumerate(names)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(6 * width * len(names))))


def sharded(folder: Path) -> Path:
    """A folder in two shards."""
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    for file, names in SHARDS.items():
        weights(folder / file, *names)
    file_of = {name: file for file, names in SHARDS.items() for name in names}
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": file_of}))
    return folder


def reindexed(folder: Path, **changes: Any) -> None:
    """Other files of some tensors in the index; None leaves the tensor out."""
    index = json.loads((folder / INDEX_FILE).read_text())
    changed = index["weight_map"] | changes
    index["weight_map"] = {name: file for name, file in changed.items() if file is not None}
    (folder / INDEX_FILE).write_text(json.dumps(index))


def test_tensors_of_all_shards_are_found(tmp_path: Path) -> None:
    import torch

    folder = open_folder(sharded(tmp_path))
    assert folder.config == {"model_type": "gpt2"}
    assert {name: each.file.name for name, each in folder.tensors.items()} == {
        name: file for file, names in SHARDS.items() for name in names
    }
    stored = (tmp_path / "model-00002-of-00002.safetensors").read_bytes()[-24:]
    read = folder.tensors["c"].read()
    assert (read.dtype, tuple(read.shape)) == (torch.float32, (2, 3))
    assert read.numpy().tobytes() == stored


def test_a_format_may_know_tensors_by_other_names(tmp_path: Path) -> None:
    folder = open_folder(sharded(tmp_path))
    assert list(folder.by(lambda name: f"x.{name}").tensors) == ["x.a", "x.b", "x.c"]
    with pytest.raises(Damaged, match=r"a \(model-00001.*b \(model-00002.* mean the same weight"):
        folder.by(lambda name: "x")


def test_a_type_that_no_weight_has_is_not_read(tmp_path: Path) -> None:
    sharded(tmp_path)
    weights(tmp_path / "model-00001-of-00002.safetensors", "a", dtype="I64", width=8)
    with pytest.raises(Refused, match="is of type I64; weights are read of F32, BF16, F16"):
        open_folder(tmp_path).tensors["a"].read()


def test_a_file_that_was_cut_since_is_named(tmp_path: Path) -> None:
    tensor = open_folder(sharded(tmp_path)).tensors["c"]
    os.truncate(tensor.file, tensor.file.stat().st_size - 1)
    with pytest.raises(Damaged, match=r"c .* has 23 of 24 bytes"):
        tensor.read()


ODD: dict[str, tuple[Callable[[Path], object], type[TrainyardError], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), Missing, "config.json does not exist"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), Damaged, "not a JSON object but a list"),
    "code": (lambda f: (f / "config.json").write_text('{"auto_map": {}}'), Refused, "has auto_map"),
    "no weights": (lambda f: (f / INDEX_FILE).unlink(), Missing, "neither model.safetensors nor"),
    "pickles": (
        lambda f: ((f / INDEX_FILE).unlink(), (f / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")),
        Refused, "pytorch_model.bin is not opened",
    ),
    "both": (lambda f: weights(f / WEIGHTS_FILE, "a"), Damaged, "has both"),
    "a shard is gone": (
        lambda f: (f / "model-00002-of-00002.safetensors").unlink(), Missing,
        "model-00002-of-00002.safetensors does not exist",
    ),
    "a shard is a pipe": (
        lambda f: [each(f / "model-00001-of-00002.safetensors") for each in (os.unlink, os.mkfifo)],
        Damaged, "pipe",
    ),
    "a link to nothing": (
        lambda f: (f / "model-00001-of-00002.safetensors").rename(f / "x")
        and (f / "model-00001-of-00002.safetensors").symlink_to("../blobs/0"),
        Missing, "model-00001-of-00002.safetensors is a link to a file that does not exist",
    ),
    "a shard is cut": (
        lambda f: os.truncate(f / "model-00001-of-00002.safetensors", 100), Damaged,
        "model-00001-of-00002.safetensors: ",
    ),
    "a shard is longer": (
        lambda f: (f / "model-00001-of-00002.safetensors").open("ab").write(b"x"), Damaged, "its tensors end at byte",
    ),
    "a tensor is in two shards": (
        lambda f: weights(f / "model-00001-of-00002.safetensors", "a", "b"), Damaged, "b is in two shards",
    ),
    "a tensor is not in its shard": (
        lambda f: weights(f / "model-00002-of-00002.safetensors", "b"), Damaged, "c is not in model-00002",
    ),
    "a tensor is not in the index": (lambda f: reindexed(f, c=None), Damaged, r"c \(model-00002-of-00002.*not in the"),
    "a tensor is in another shard": (
        lambda f: reindexed(f, c="model-00001-of-00002.safetensors"), Damaged, "c .* is in another shard",
    ),
    "a shard outside": (lambda f: reindexed(f, c="../x.safetensors"), Damaged, "the file of c is '../x.safetensors'"),
    "a shard that is a pickle": (lambda f: reindexed(f, c="x.bin"), Damaged, "the file of c is 'x.bin'"),
    "an empty index": (lambda f: reindexed(f, a=None, b=None, c=None), Damaged, "no weight_map"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    change, kind, says = ODD[name]
    change(sharded(tmp_path))
    with pytest.raises(TrainyardError, match=says) as caught:
        open_folder(tmp_path)
    assert type(caught.value) is kind


def test_a_tensor_that_a_header_has_twice_is_named(tmp_path: Path) -> None:
    weights(tmp_path / WEIGHTS_FILE, "a", "b")
    content = (tmp_path / WEIGHTS_FILE).read_bytes().replace(b'"b"', b'"a"')
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Damaged, match="key 'a' more than once"):
        open_folder(tmp_path)


def test_what_is_no_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="is no folder"):
        open_folder(tmp_path / "x")
