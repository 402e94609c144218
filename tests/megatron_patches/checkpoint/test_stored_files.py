"""Headers of safetensors files that are not as a checkpoint has them: one named error, whatever they hold."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_patches.checkpoint.files.safetensors_header import BadHeader
from megatron_patches.checkpoint.files.stored_files import read_header
from megatron_patches.errors import Damaged

NAME = "layers.0.weight"


def entries() -> dict[str, Any]:
    """The header of a file of one tensor of six numbers."""
    cut = {"name": NAME, "kind": "weight", "global_shape": [2, 3], "box": [[0, 2], [0, 3]], "start": 0}
    return {
        "__metadata__": {"slices": {"w": cut}},
        "w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},
    }


def write(path: Path, header: Any, data: bytes = bytes(24)) -> Path:
    """A file with this header; a dict's `slices` is written as the text that it is in a file."""
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        metadata = header["__metadata__"]
        if not isinstance(metadata.get("slices"), str | None):
            header = {**header, "__metadata__": {**metadata, "slices": json.dumps(metadata["slices"])}}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_a_good_header(tmp_path: Path) -> None:
    (piece,) = read_header(write(tmp_path / "f", entries()))
    assert (piece.name, piece.kind, piece.elements, piece.bytes) == (NAME, "weight", 6, 24)


def change(*way: str | int, to: Any) -> Callable[[dict[str, Any]], Any]:
    def changed(header: dict[str, Any]) -> dict[str, Any]:
        inner: Any = header
        for step in way[:-1]:
            inner = inner[step]
        inner[way[-1]] = to
        return header

    return changed


CUT = ("__metadata__", "slices", "w")


@pytest.mark.parametrize(
    "damage",
    [
        change("w", "shape", to=[]),
        change("w", "shape", to=[2, 3]),
        change("w", "shape", to=[-6]),
        change("w", "shape", to=["6"]),
        change("w", "shape", to=[6.0]),
        change("w", "shape", to=[True]),
        change("w", "shape", to=None),
        change("w", "data_offsets", to=[24, 0]),
        change("w", "data_offsets", to=[-24, 0]),
        change("w", "data_offsets", to=[8, 32]),
        change("w", "data_offsets", to=[0, 10**300]),
        change("w", "data_offsets", to=[0]),
        change("w", "dtype", to="F64"),
        change("w", "dtype", to=["F32"]),
        change("w", to=None),
        change("w", to=[]),
        change("v", to={"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}),
        change(*CUT, to=None),
        change(*CUT, "global_shape", to=[]),
        change(*CUT, "global_shape", to=[1] * 2000),
        change(*CUT, "box", to=[[0, 2]]),
        change(*CUT, "box", to=[[0, 3], [0, 2]]),
        change(*CUT, "box", to=[[2, 0], [0, 3]]),
        change(*CUT, "box", to=[[-1, 2], [0, 3]]),
        change(*CUT, "box", to=[[0, 2], 3]),
        change(*CUT, "start", to=-1),
        change(*CUT, "start", to=1),
        change(*CUT, "start", to=None),
        change(*CUT, "name", to=["x"]),
        change(*CUT, "name", to="\x1b]52;c;aGk=\x07"),
        change("__metadata__", to=None),
        change("__metadata__", to=[]),
        change("__metadata__", "slices", to={"w": {"slices": {}}}),
        change("__metadata__", "slices", to="[" * 100_000),
        change("__metadata__", "slices", to="[]"),
        lambda header: None,
        lambda header: [],
        lambda header: b"[" * 100_000,
        lambda header: b'{"w": ' + b"9" * 5000 + b"}",
        lambda header: b"\xff\xfe",
        lambda header: b"{",
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, damage: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(BadHeader) as caught:
        read_header(write(tmp_path / "f", damage(entries())))
    assert isinstance(caught.value, Damaged)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("length", [0, 1 << 63, (1 << 64) - 1, 100_000_001, 200])
def test_a_length_that_the_file_does_not_have(tmp_path: Path, length: int) -> None:
    (tmp_path / "f").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(BadHeader, match="does not fit into a file of 10"):
        read_header(tmp_path / "f")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(BadHeader, match="pipe"):
        read_header(tmp_path / "f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PLACES = [("w",), *(("w", key) for key in ("dtype", "shape", "data_offsets")), ("__metadata__",), CUT]
PLACES += [(*CUT, key) for key in ("name", "kind", "global_shape", "box", "start")]


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere(place: tuple[str, ...], value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.safetensors", change(*place, to=value)(entries()))
    try:
        pieces = read_header(path)
    except BadHeader:
        return
    assert sum(piece.bytes for piece in pieces) == 24
