"""Foreign checkpoints get manifests and stay as they are."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.inventory.adoption import adopt
from megatron_patches.artefacts.inventory.adoption_formats import find_checkpoints
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
    (adopted,) = adopt(folder, runs / "tr11-176B-ml")
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
    assert [each.is_new for each in adopt(folder, tmp_path / "runs" / "r")] == [True]
    assert [each.is_new for each in adopt(folder, tmp_path / "runs" / "r")] == [False]
    assert len(list((tmp_path / "runs" / "r" / "elsewhere").iterdir())) == 1


def test_several_at_once_by_step(tmp_path: Path) -> None:
    folder = write(tmp_path, [f"steps/step-{step}-val_ppl-4.0.ckpt" for step in (5000, 15000, 10000)])
    assert [each.step for each in find_checkpoints(folder)] == [5000, 10000, 15000]


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
        assert adopt(folder, tmp_path / "runs" / "r", step=7)[0].manifest.facts["step"] == 7
    with pytest.raises(TrainyardError, match="does not exist"):
        adopt(tmp_path / "nowhere", tmp_path / "runs" / "r")
