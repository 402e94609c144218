"""Foreign checkpoints get manifests and stay as they are."""

import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.foreign_formats.formats import find_checkpoints
from megatron_patches.artefacts.foreign_formats.pickle_outline import read_outline
from megatron_patches.artefacts.foreign_formats.size import misfit_of
from megatron_patches.artefacts.inventory.adoption import adopt
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.inventory.verification import verify_artefact
from megatron_patches.errors import TrainyardError

DEEPSPEED = [
    "global_step20/layer_01-model_00-model_states.pt",
    "global_step20/layer_01-model_01-model_states.pt",
    "global_step20/mp_rank_00_model_states.pt",
    "global_step20/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step20/bf16_zero_pp_rank_10_mp_rank_00_optim_states.pt",
    "latest",
]


CUT = ("steps/step-1.ckpt", "steps/step-2.ckpt")


def write(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    ("names", "kind", "step", "facts"),
    [
        (DEEPSPEED, "deepspeed", 20, {"layout": {"tensor": 2, "data": 2}, "content": "full"}),
        (
            ["iter_0000500/mp_rank_00_000/model_optim_rng.pt", "iter_0000500/mp_rank_01_001/model_optim_rng.pt"],
            "megatron", 500, {"layout": {"tensor": 2, "pipeline": 2}, "content": "full"},
        ),
        (
            ["best/step-487500-val_ppl-3.72168.ckpt"],
            "lightning", 487500, {"metrics": {"val_ppl": 3.72168}, "content": "full"},
        ),
        (["epoch=3-step=1200-val_loss=2.5.ckpt"], "lightning", 1200, {"metrics": {"val_loss": 2.5}}),
        (["checkpoint-80/config.json", "checkpoint-80/model.safetensors"], "transformers", 80, {"content": "weights"}),
        (
            ["checkpoint-80/config.json", "checkpoint-80/model.safetensors", "checkpoint-80/optimizer.pt"],
            "transformers", 80, {"content": "full"},
        ),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, names: list[str], kind: str, step: int, facts: dict[str, object]) -> None:
    folder, runs = write(tmp_path / "foreign", names), tmp_path / "runs"
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    (adopted,) = adopt(folder, runs / "tr11-176B-ml").adopted
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    found = adopted.manifest.facts
    assert (found["format"], found["step"], found["run"]) == (kind, step, "tr11-176B-ml")
    assert {key: found[key] for key in facts} == facts
    with open_catalogue(runs, tmp_path / "data") as catalogue:
        artefact = resolve_artefact(f"tr11-176B-ml@{step}", catalogue)
        assert artefact.whereabouts == "elsewhere"
        assert verify_artefact(catalogue, artefact).problems == []
        next(path for path in folder.rglob("*") if path.is_file() and path.name != "latest").unlink()
        assert len(verify_artefact(catalogue, artefact).problems) == 1


def test_a_second_adoption_changes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "foreign", DEEPSPEED)
    assert [each.is_new for each in adopt(folder, tmp_path / "runs" / "r").adopted] == [True]
    assert [each.is_new for each in adopt(folder, tmp_path / "runs" / "r").adopted] == [False]
    assert len(list((tmp_path / "runs" / "r" / "elsewhere").iterdir())) == 1


def test_several_at_once_by_step(tmp_path: Path) -> None:
    folder = write(tmp_path, [f"steps/step-{step}-val_ppl-4.0.ckpt" for step in (5000, 15000, 10000)])
    assert [each.step for each in find_checkpoints(folder)[0]] == [5000, 10000, 15000]


@pytest.mark.parametrize(
    ("names", "said"),
    [([], "no checkpoint of"), (["config.json", "model.safetensors"], "--step"), (["last.ckpt"], "--step")],
)  # fmt: skip
def test_what_cannot_be_adopted(tmp_path: Path, names: list[str], said: str) -> None:
    folder = write(tmp_path / "foreign", names)
    folder.mkdir(exist_ok=True)
    with pytest.raises(TrainyardError, match=said):
        adopt(folder, tmp_path / "runs" / "r")
    assert not (tmp_path / "runs").exists()
    if names:
        assert adopt(folder, tmp_path / "runs" / "r", step=7).adopted[0].manifest.facts["step"] == 7
    with pytest.raises(TrainyardError, match="does not exist"):
        adopt(tmp_path / "nowhere", tmp_path / "runs" / "r")


def saved(path: Path, content: bytes) -> Path:
    """A file as torch.save writes it, as far as its outline goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


def lightning(path: Path, step: int) -> Path:
    return saved(path, pickle.dumps({"epoch": 1, "global_step": step, "state_dict": {}}))


def test_the_published_t5_layout(tmp_path: Path) -> None:
    """Best ones and steps with names that say the step, and two `last.ckpt` that say it inside."""
    folder = tmp_path / "t5"
    lightning(folder / "best" / "step-487500-val_ppl-3.72168.ckpt", 487500)
    lightning(folder / "best" / "last.ckpt", 487500)
    lightning(folder / "steps" / "step-485000.ckpt", 485000)
    lightning(folder / "steps" / "last.ckpt", 490000)
    (folder / "steps" / "broken" / "last.ckpt").parent.mkdir()
    (folder / "steps" / "broken" / "last.ckpt").write_bytes(b"half")
    (folder / "steps" / "step-1.ckpt").touch()
    (folder / "steps" / "step-2.ckpt").write_bytes((folder / "steps" / "step-485000.ckpt").read_bytes()[:-30])
    (folder / "tokenizer.bin").write_bytes(b"")
    done = adopt(folder, tmp_path / "runs" / "t5")
    assert [each.manifest.facts["step"] for each in done.adopted] == [485000, 487500, 490000]
    assert done.adopted[1].manifest.facts["metrics"] == {"val_ppl": 3.72168}
    reasons = {str(each.path.relative_to(folder)): (each.reason, each.is_fault) for each in done.passed_over}
    assert set(reasons) == {"best/last.ckpt", "steps/broken/last.ckpt", "tokenizer.bin", *CUT}
    assert "of step 487500, of which" in reasons["best/last.ckpt"][0] and not reasons["best/last.ckpt"][1]
    assert [reasons[name][0].split(";")[0].split(":")[0] for name in CUT] == ["is empty", "is cut short"]
    assert "no file of torch.save" in reasons["steps/broken/last.ckpt"][0]


class Hostile:
    """Would write a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_looking_into_a_file_runs_nothing(tmp_path: Path) -> None:
    content = {
        "global_step": 7,
        "callbacks": {Path: Hostile(tmp_path / "ran")},
        "state_dict": Hostile(tmp_path / "ran"),
    }
    assert read_outline(saved(tmp_path / "last.ckpt", pickle.dumps(content))).step == 7
    assert not (tmp_path / "ran").exists()


def test_keys_that_would_take_years_to_hash(tmp_path: Path) -> None:
    opcodes = b"\x80\x02)q\x000"
    for number in range(100):  # each a pair of the one before
        opcodes += b"h" + bytes([number]) + b"h" + bytes([number]) + b"\x86q" + bytes([number + 1]) + b"0"
    started = time.monotonic()
    assert read_outline(saved(tmp_path / "last.ckpt", opcodes + b"}h\x64K\x01s.")).step is None
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("step", [True, -1, 10**10, "7", None, 1e3])
def test_a_step_that_is_none(tmp_path: Path, step: object) -> None:
    path = saved(tmp_path / "last.ckpt", pickle.dumps({"global_step": step}))
    assert read_outline(path).step is None
    with pytest.raises(TrainyardError, match="neither its name nor the file says the step"):
        adopt(tmp_path, tmp_path / "runs" / "r")


def test_a_checkpoint_of_another_size_is_not_of_the_run(tmp_path: Path) -> None:
    import torch

    (tmp_path / "global_step20").mkdir()
    weights = {"module": {"weight": torch.zeros(2, 2), "tied": torch.nn.Parameter(torch.zeros(3))}}
    torch.save(weights, tmp_path / "global_step20" / "mp_rank_00_model_states.pt")
    (found,), _ = find_checkpoints(tmp_path)
    assert misfit_of(found, "r", 7) == ""
    assert "holds 7 parameters, r has 1,300: it is not of this run" in misfit_of(found, "r", 1300)
    with pytest.raises(TrainyardError, match="it is not of this run"):
        adopt(tmp_path, tmp_path / "runs" / "r", misfit=lambda each: misfit_of(each, "r", 1300))
    assert not (tmp_path / "runs").exists()


def test_a_step_that_contradicts_the_name_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "foreign", DEEPSPEED)
    with pytest.raises(TrainyardError, match="says that it is of step 20"):
        adopt(folder, tmp_path / "runs" / "r", step=7)


@pytest.mark.parametrize("name", ["..", "-x", "a\nb", "a b", "x@5", ".hidden"])
def test_names_that_no_run_can_have(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "foreign", DEEPSPEED)
    with pytest.raises(TrainyardError, match="cannot be the name of a run"):
        adopt(folder, tmp_path / "runs" / name)


def test_a_file_whose_name_is_not_utf8_is_listed(tmp_path: Path) -> None:
    lightning(tmp_path / "foreign" / "step-5.ckpt", 5)
    lightning(tmp_path / "foreign" / os.fsdecode(b"step-6-\xff.ckpt"), 6)
    done = adopt(tmp_path / "foreign", tmp_path / "runs" / "r")
    assert [each.manifest.facts["step"] for each in done.adopted] == [5]
    assert "its name is not UTF-8" in str(done.passed_over[0]) and str(done.passed_over[0]).isprintable()
