"""`tools/import-checkpoint` and `tools/export-universal`: a way there and back, and mistakes said at once."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_patches.artefacts.descent import way_of
from megatron_patches.artefacts.manifest import read_manifest, verify_files
from megatron_patches.checkout import CHECKOUT
from megatron_patches.run.run_directory import start_launch
from tests.command_line import verb
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tests.whole_state import whole_tensors
from tools.commands import import_checkpoint

GATED = overrides(
    model__activation="swiglu", model__layers=2, training__steps=3, evaluation="null", training__precision="bf16"
)


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a gated model after 3 steps in bf16, and its YAML beside the runs."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder, GATED))
    run_on_ranks(train_launch, 2, str(launch.directory))
    return launch.run.path


def call(
    verb: str, *arguments: object, runs: Path, without_torch: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "TRAINYARD_RUNS": str(runs)}
    if without_torch is not None:  # a module named torch that cannot be imported
        (without_torch / "torch.py").write_text("raise SystemExit('torch was imported')")
        environment["PYTHONPATH"] = str(without_torch)
    command = [CHECKOUT / "tools" / verb, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    return {place: values.reshape(-1) for place, values in whole_tensors(folder).items()}


def test_out_and_back_in_bigscience_names(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its gated halves stand in BigScience's order in the files, and in ours again when they are back."""
    done = call("export-universal", trained.name, "--output", tmp_path / "out", runs=trained.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step-0000000003 in " in done.stdout
    manifest = read_manifest(tmp_path / "out" / "manifest.json")
    assert verify_files(manifest, tmp_path / "out", hashes=True) == []
    assert manifest.facts["format"] == "deepspeed universal"
    zero = tmp_path / "out" / "global_step3_universal" / "zero"
    saved: dict[str, Any] = torch.load(zero / "4.mlp.dense_h_to_4h.weight" / "fp32.pt")
    checkpoint = trained / "checkpoints" / "step-0000000003"
    gate, value = contents(checkpoint)["layers.1.mlp.up.linear.weight", "master"].view(2, 64, 32)
    assert torch.equal(saved.pop("param"), torch.cat([value, gate]))
    assert saved == {"cat_dim": 0, "param_n_sub_params": 2}

    (tmp_path / "names.yaml").write_text(BIGSCIENCE)
    run = trained.parents[1] / "tr900-tests" / "tr900a-28K-small.yaml"
    settings = (tmp_path / "out", run, "--names", tmp_path / "names.yaml", *GATED)
    done = call("import-checkpoint", *settings, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "from deepspeed universal, step 3, 24 samples, 3 updates in the optimizer" in done.stdout
    back = tmp_path / "runs" / "tr900a-28K-small" / "checkpoints" / "step-0000000003"
    returned, saved_here = (read_manifest(folder / "manifest.json") for folder in (back, checkpoint))
    assert returned.parents[0] == manifest.id and manifest.parents == [saved_here.id]
    assert list(way_of(returned.facts))[:2] == [manifest.id, saved_here.id], "known also when the export is gone"
    for name in ("manifest.json", "tokenizer.json", "tokenizer_config.json"):
        assert (back / "tokenizer" / name).read_bytes() == (checkpoint / "tokenizer" / name).read_bytes()
    assert len([file for file in returned.files if file.path.startswith("tokenizer/")]) == 3
    found, expected = contents(back), contents(checkpoint)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    again = verb(import_checkpoint, monkeypatch, capsys)(*settings)
    assert again.returncode == 2
    assert "has checkpoints already, the newest step-0000000003" in again.stderr


BIGSCIENCE = """\
names:
  tied_modules.embed.word_embeddings.weight: embedding.tokens.table.weight
  tied_modules.embed.position_embeddings.weight: positions.weight
  "{n+3}.input_layernorm.*": layers.{n}.attention_norm.*
  "{n+3}.self_attention.query_key_value.*": layers.{n}.attention.query_key_value.linear.*
  "{n+3}.self_attention.dense.*": layers.{n}.attention.output.linear.*
  "{n+3}.post_attention_layernorm.*": layers.{n}.mlp_norm.*
  "{n+3}.mlp.dense_h_to_4h.*": layers.{n}.mlp.up.linear.*
  "{n+3}.mlp.dense_4h_to_h.*": layers.{n}.mlp.down.linear.*
  "6.*": final_norm.*
value_before_gate: true
"""


def test_a_large_parameter_is_put_together_in_a_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron_patches.checkpoint.files import state_tensor
    from megatron_patches.exchange import universal_export
    from megatron_patches.parameters.name_map import OwnNames

    checkpoint = trained / "checkpoints" / "step-0000000003"
    for module in (state_tensor, universal_export):
        monkeypatch.setattr(module, "PIECE_ELEMENTS", 1000)
    universal_export.export_universal(checkpoint, tmp_path / "out", OwnNames("trainyard", ()))
    zero = tmp_path / "out" / "global_step3_universal" / "zero"
    assert {path.suffix for path in zero.rglob("*") if path.is_file()} == {".pt"}
    for (name, kind), tensor in contents(checkpoint).items():
        if kind != "weight":
            file = {"master": "fp32"}.get(kind, kind)
            assert torch.equal(torch.load(zero / name / f"{file}.pt")["param"].flatten(), tensor)


@pytest.mark.parametrize(
    ("verb", "settings", "message"),
    [
        ("import-checkpoint", ("{empty}", "tr0a-4M-stdlb"), "there is no run tr0a-4M-stdlb; nearest: tr0a-4M-stdlib"),
        ("import-checkpoint", ("{empty}", "tr0a-4M-stdlib", "--weight-only", "1"), "weight-only"),
        ("import-hf", ("{empty}", "--show"), "config.json does not exist"),
        ("export-universal", ("nothing", "--output", "{empty}/out"), "there is no run directory"),
        ("export-universal", ("nothing", "--output", "{empty}"), "exists; name another folder"),
        ("reshape", ("nothing", "--files", "2", "--output", "{empty}"), "exists; name another folder"),
    ],
)
def test_mistakes_are_said_before_torch_is_imported(
    verb: str, settings: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "path").mkdir()
    given = [word.format(empty=tmp_path / "empty") for word in settings]
    done = call(verb, *given, runs=tmp_path / "runs", without_torch=tmp_path / "path")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["import-checkpoint", "import-hf", "export-universal", "reshape"])
def test_help_needs_no_torch(verb: str, tmp_path: Path) -> None:
    done = call(verb, "--help", runs=tmp_path, without_torch=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"tools/{verb}" in done.stdout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.rmdir(), "there is no folder"),
        (lambda folder: None, "is no checkpoint of DeepSpeed: it has neither"),
        (lambda folder: (folder / "zero").mkdir(), "holds no parameter"),
        (lambda folder: (folder / "mp_rank_00_model_states.pt").write_bytes(b"PK"), "cannot be read"),
        (lambda folder: (folder / "layer_03_expert_1_mp_rank_00_model_states.pt").touch(), "a mixture of experts"),
        (lambda folder: (folder / "latest").write_text("global_step7"), "there is no folder .*global_step7"),
    ],
)
def test_folders_that_are_no_checkpoints(make: Any, message: str, small_data: SmallData, tmp_path: Path) -> None:
    from megatron_patches.artefacts.run_folder import RunFolder
    from megatron_patches.errors import TrainyardError
    from megatron_patches.exchange import adoption

    (tmp_path / "folder").mkdir()
    make(tmp_path / "folder")
    request = adoption.ImportRequest(tmp_path / "folder", small_data.run(tmp_path), "trainyard")
    with pytest.raises(TrainyardError, match=message):
        adoption.import_checkpoint(request, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
