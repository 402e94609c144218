"""Files of torch.save: what is hidden in them does not run, and what they may name is what real files name."""

import argparse
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.exchange.safe_pickle import STAND_INS, FragmentAddress, Record, read_pickle


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Harmless:
    """A type that nobody named."""


def test_a_program_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3), "hidden": Trap(tmp_path / "ran")}, tmp_path / "x.pt")
    with pytest.raises(Refused, match=rf"^{tmp_path}/x.pt names posix.mkdir, .*could run any program") as caught:
        read_pickle(tmp_path / "x.pt", trust=False)
    assert str(caught.value).count(str(tmp_path)) == 1 and "damaged" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    read_pickle(tmp_path / "x.pt", trust=True)
    assert (tmp_path / "ran").exists(), "the trap works, so the first reading was what kept it shut"


def test_the_old_format_is_no_way_around(tmp_path: Path) -> None:
    torch.save({"hidden": Trap(tmp_path / "ran")}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(Refused, match="cannot be read safely"):
        read_pickle(tmp_path / "x.pt", trust=False)
    assert not (tmp_path / "ran").exists()


def test_what_other_libraries_have_allowed_does_not_run_either(tmp_path: Path) -> None:
    torch.save({"hidden": Trap(tmp_path / "ran")}, tmp_path / "x.pt")
    with torch.serialization.safe_globals([os.mkdir]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(TrainyardError, match="could run any program"):
            read_pickle(tmp_path / "x.pt", trust=False)
        assert set(torch.serialization.get_safe_globals()) == before, "they have it back"
    assert not (tmp_path / "ran").exists()


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    torch.save([Harmless()], tmp_path / "x.pt")
    with pytest.raises(TrainyardError, match=r"names tests\.[\w.]+\.test_safe_pickle\.Harmless, not known"):
        read_pickle(tmp_path / "x.pt", trust=False)
    assert isinstance(read_pickle(tmp_path / "x.pt", trust=True)[0], Harmless)


def test_what_real_files_hold_is_read_without_its_code(tmp_path: Path) -> None:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    content = {
        "address": fragment_address(start=5, numel=7),
        "scalers": [
            LossScaler(scale=2.0),
            DynamicLossScaler.__new__(DynamicLossScaler),
        ],
        "stage": ZeroStageEnum.weights,
        "args": argparse.Namespace(iteration=3, save=Path("/x"), dtype=torch.bfloat16),
        "rng": [random.getstate(), np.random.get_state(), np.float64(3.0), torch.get_rng_state()],
        "shape": torch.Size([3]),
    }  # fmt: skip
    torch.save(content, tmp_path / "x.pt")
    read = read_pickle(tmp_path / "x.pt", trust=False)
    assert isinstance(read["address"], FragmentAddress)
    assert (read["address"].start, read["address"].numel, read["stage"], read["args"].iteration) == (5, 7, 3, 3)
    assert all(type(scaler) is Record for scaler in read["scalers"])
    assert read["args"].dtype == torch.bfloat16


def test_only_stand_ins_are_built() -> None:
    assert all(kind is int or issubclass(kind, Record) for kind in STAND_INS.values())


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_truncated_file_is_named(keep: float, old_format: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"weight": torch.randn(1000)}, path, _use_new_zipfile_serialization=not old_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep != 0.5 else len(content) / 2)])
    with pytest.raises(Damaged, match=f"{path} cannot be read .*it is damaged"):
        read_pickle(path, trust=False)


def test_tensors_stay_in_the_file(tmp_path: Path) -> None:
    """Mapped, so that a shard of 20 GB costs no memory; changes do not reach the file."""
    torch.save(torch.arange(1000.0), tmp_path / "x.pt")
    before = (tmp_path / "x.pt").read_bytes()
    read = read_pickle(tmp_path / "x.pt", trust=False)
    read.zero_()
    assert read.untyped_storage().filename is not None or read.untyped_storage().nbytes() >= 4000
    assert (tmp_path / "x.pt").read_bytes() == before


def repacked(source: Path, target: Path, compression: int, **changes: bytes) -> Path:
    """The members of a zip file again, some with other contents (by the end of their name)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.namelist():
            new.writestr(member, changes.get(member.rpartition("/")[2].partition(".")[0], old.read(member)))
    return target


def test_compressed_members_are_refused_before_they_are_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "x.pt")
    bomb = repacked(tmp_path / "x.pt", tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED, data=bytes(64 << 20))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(Refused, match=r"^\S*bomb.pt has compressed members"):
        read_pickle(bomb, trust=False)
    large = repacked(tmp_path / "x.pt", tmp_path / "large.pt", zipfile.ZIP_STORED, data=bytes((32 << 20) + 1))
    with pytest.raises(Refused, match=r"at most 33,554,432 are read"):
        read_pickle(large, trust=False)


def nested(levels: int, width: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value] * width
    return value


def circle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nested(30, 10), "5,000,000 in all"),
        (nested(200, 1), "more than 100 deep"),
        (circle(), "more than 100 deep"),
        ({"w": torch.ones(1).expand(10**6, 10**6)}, r"a tensor of \(1000000, 1000000\), 4,000,000,000,000 bytes"),
        ({"w": torch.ones(3).to_sparse()}, "sparse"),
        ({"w": torch.ones(3, device="meta")}, "without numbers"),
        ({"w": argparse.Namespace(inner=[torch.ones(1).expand(10**12)])}, "in a storage of 4"),
    ],
)
def test_what_stands_for_more_than_it_holds(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(Refused, match=message) as caught:
        read_pickle(tmp_path / "x.pt", trust=False)
    assert str(caught.value).startswith(str(tmp_path / "x.pt"))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("old_format", [False, True])
def test_changed_bytes_are_a_value_or_one_error(tmp_path: Path, seed: int, old_format: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"weight": torch.ones(3), "n": [1, "two"]}, path, _use_new_zipfile_serialization=not old_format)
    content, chance = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(5):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    try:
        read_pickle(path, trust=False)
    except TrainyardError as error:
        assert str(error).count(str(path)) == 1
