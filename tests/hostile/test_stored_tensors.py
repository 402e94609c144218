"""Headers of safetensors files, and pickles of torch.save."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.checkpoint.files.safetensors_header import BadHeader
from megatron_patches.checkpoint.files.stored_files import read_header
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.safe_pickle import read_pickle
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_bytes, odd_json

NewPlace = Callable[[], Place]
_CUTS = {
    "0": {"name": "a.weight", "kind": "weight", "global_shape": [4, 2], "box": [[0, 4], [0, 2]], "start": 0},
    "1": {"name": "b", "kind": "master", "global_shape": [2], "box": [[0, 2]], "start": 0},
}
_ENTRIES = {
    "0": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
    "1": {"dtype": "BF16", "shape": [2], "data_offsets": [32, 36]},
}


def _file(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(36)


def _header(cuts: bytes) -> bytes:
    return json.dumps({"__metadata__": {"slices": cuts.decode()}, **_ENTRIES}).encode()


def test_the_file_that_is_damaged_below_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(_file(_header(json.dumps(_CUTS).encode())))
    assert [piece.name for piece in read_header(tmp_path / "a")] == ["a.weight", "b"]


@cases(400)
@given(data=st.data())
def test_a_header(new_place: NewPlace, data: st.DataObject) -> None:
    path = new_place().inside / "weights-00000.safetensors"
    whole = _header(json.dumps(_CUTS).encode())
    content = data.draw(
        st.one_of(
            odd_json(json.loads(whole)).map(_file),
            odd_json(_CUTS).map(lambda cuts: _file(_header(cuts))),
            odd_bytes(_file(whole)),
        )
    )
    path.write_bytes(content)

    def read() -> int:
        try:
            pieces = read_header(path)
        except BadHeader as error:
            raise TrainyardError(f"{path.name}: {error}") from None
        return sum(piece.bytes for piece in pieces)

    found = attempt(read)
    if not isinstance(found, TrainyardError):
        assert found <= len(content)


@pytest.fixture(scope="module")
def pickled() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"module": {"a": torch.zeros(3)}, "iteration": 5, "name": "x"}, buffer)
    return buffer.getvalue()


@cases(150)
@given(data=st.data())
def test_a_pickle(new_place: NewPlace, pickled: bytes, data: st.DataObject) -> None:
    place = new_place()
    path = place.inside / "mp_rank_00_model_states.pt"
    path.write_bytes(data.draw(odd_bytes(pickled)))
    found = attempt(lambda: read_pickle(path, trust=False))
    if isinstance(found, TrainyardError):
        assert str(found).count(path.name) == 1, found
    place.check()


@cases(60)
@given(data=st.data())
def test_the_program_in_a_pickle(new_place: NewPlace, pickled: bytes, data: st.DataObject) -> None:
    place = new_place()
    path = place.inside / "mp_rank_00_model_states.pt"
    with zipfile.ZipFile(io.BytesIO(pickled)) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("data.pkl"):
                content = data.draw(odd_bytes(content))
            target.writestr(member.filename, content)
    found = attempt(lambda: read_pickle(path, trust=False))
    if isinstance(found, TrainyardError):
        assert str(found).count(path.name) == 1, found
    place.check()


@pytest.mark.parametrize("bomb", ["data/0", "data.pkl"])
def test_a_member_that_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path: Path, pickled: bytes, bomb: str
) -> None:
    """torch.save packs nothing, and what is mapped from the file would be the packed bytes."""
    path = tmp_path / "mp_rank_00_model_states.pt"
    with zipfile.ZipFile(io.BytesIO(pickled)) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            content = bytes(256 << 20) if member.filename.endswith(bomb) else source.read(member)
            target.writestr(member.filename, content, compresslevel=1)
    assert isinstance(attempt(lambda: read_pickle(path, trust=False)), TrainyardError)
