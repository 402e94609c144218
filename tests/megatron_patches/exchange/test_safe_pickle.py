"""Files of torch.save: what is hidden in them does not run, and what they may name is what real files name."""

import argparse
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_patches.errors import TrainyardError
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
    with pytest.raises(TrainyardError, match=rf"{tmp_path}/x.pt names posix.mkdir, .*could run any program"):
        read_pickle(tmp_path / "x.pt", trust=False)
    assert not (tmp_path / "ran").exists()
    read_pickle(tmp_path / "x.pt", trust=True)
    assert (tmp_path / "ran").exists(), "the trap works, so the first reading was what kept it shut"


def test_the_old_format_is_no_way_around(tmp_path: Path) -> None:
    torch.save({"hidden": Trap(tmp_path / "ran")}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(TrainyardError, match="cannot be read safely"):
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
    with pytest.raises(TrainyardError, match=f"{path} cannot be read"):
        read_pickle(path, trust=False)


def test_tensors_stay_in_the_file(tmp_path: Path) -> None:
    """Mapped, so that a shard of 20 GB costs no memory; changes do not reach the file."""
    torch.save(torch.arange(1000.0), tmp_path / "x.pt")
    before = (tmp_path / "x.pt").read_bytes()
    read = read_pickle(tmp_path / "x.pt", trust=False)
    read.zero_()
    assert read.untyped_storage().filename is not None or read.untyped_storage().nbytes() >= 4000
    assert (tmp_path / "x.pt").read_bytes() == before
