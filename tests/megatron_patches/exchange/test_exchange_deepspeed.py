"""What a bare DeepSpeed script saved is continued by ours, and what ours saved by DeepSpeed's own universal loading."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from megatron_patches.artefacts.descent import BRANCH, ORIGIN, RUN_ID
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.starting_point import write_initial_weights
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.exchange.adoption import Imported, ImportRequest, import_checkpoint
from megatron_patches.exchange.universal_export import export_universal
from megatron_patches.launch.checks import launch_problems
from megatron_patches.launch.facts import LaunchFacts, LaunchTarget
from megatron_patches.parameters.name_map import read_name_map
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import ReadRun
from megatron_patches.run.run_directory import run_directory, start_launch
from tests.bare_deepspeed import NAMES, load_universal_and_go_on, save_and_go_on, save_each
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tests.whole_state import whole_tensors

GROUPS = 'groups: [["tok.weight", "pos.weight", "*.qkv.weight", "*.proj.weight", "*.fc?.weight"], ["*"]]\n'
VARIANTS = {
    "ZeRO 0": (0, False, None), "ZeRO 2": (2, False, None), "ZeRO 3": (3, False, None),
    "ZeRO 0 bf16": (0, True, None), "BF16_Optimizer": (1, True, None),
}  # fmt: skip
FROZEN = {f"frozen under ZeRO {stage}": (stage, False, "pos.weight") for stage in (1, 3)}


class Saved(SimpleNamespace):
    """A script's checkpoints and losses, and the run that is to continue them."""

    data: SmallData
    folder: Path
    names: Path
    losses: list[float]

    def config(self, *arguments: str) -> RunConfig:
        return self.data.run(self.folder, [*overrides(optimizer__gradient_clip=0), *arguments])

    def request(self, name: str, *arguments: str) -> ImportRequest:
        return ImportRequest(self.folder / name, self.config(*arguments), str(self.names))


@pytest.fixture(scope="module")
def saved(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("bare")
    (folder / "names.yaml").write_text(NAMES + GROUPS)
    made = Saved(data=small_data, folder=folder, names=folder / "names.yaml")
    made.losses = run_on_ranks(save_and_go_on, 4, made.config(), str(folder / "TP2 DP2"))[0]
    run_on_ranks(save_each, 2, made.config(), str(folder), VARIANTS | FROZEN, timeout=240)
    return made


def adopt(request: ImportRequest, folder: Path) -> Imported:
    return import_checkpoint(request, RunFolder(folder))


def contents(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    return whole_tensors(folder)


def resumed_from(request: ImportRequest) -> int:
    """Samples that the run's next launch begins with; nothing keeps it from starting."""
    facts = LaunchFacts(ReadRun(request.config), LaunchTarget(nodes=None))
    assert launch_problems(facts) == []
    return facts.consumed_samples


def losses(run: RunFolder) -> list[float]:
    return [event.facts["loss"] for event in effective(read_events(run.events), "step")]


@pytest.mark.parametrize(
    ("ranks", "arguments"), [(4, overrides(parallel__tensor=2)), (2, []), (1, overrides(parallel__zero_stage=0))]
)
def test_our_trainer_continues_as_the_script_does(
    ranks: int, arguments: list[str], saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path))
    request = saved.request("TP2 DP2", *arguments)
    launch = start_launch(request.config)
    done = adopt(request, launch.run.path)
    assert (done.folder.name, done.progress.samples, done.optimizer_steps) == ("step-0000000003", 24, 3)
    assert done.notes == []
    assert resumed_from(request) == 24
    run_on_ranks(train_launch, ranks, str(launch.directory))
    newest, *_, first = list_checkpoints(launch.run.checkpoints)
    saved_here, imported = (read_manifest(folder / "manifest.json") for folder in (newest, first))
    of_a_launch = {"validation_loss", "validation_losses", "best_by", "skipped_samples", BRANCH, RUN_ID, ORIGIN}
    assert imported.facts.keys() == saved_here.facts.keys() - of_a_launch | {"source"}
    found = losses(launch.run)
    assert len(found) == len(saved.losses) == 5
    assert max(abs(ours - theirs) / theirs for ours, theirs in zip(found, saved.losses, strict=True)) < 1e-5
    assert len(set(saved.losses)) == 5, "the script learns nothing that could differ"


def test_an_optimizer_that_goes_on_otherwise_is_said(saved: Saved, tmp_path: Path) -> None:
    arguments = overrides(optimizer__beta2=0.9, optimizer__learning_rate=2e-2)
    notes = adopt(saved.request("TP2 DP2", *arguments), tmp_path).notes
    assert [note.split(" was ")[0] for note in notes] == ["their lr", "their betas"]
    assert notes[1] == "their betas was (0.9, 0.95), the run's is (0.9, 0.9) at step 3"


def test_the_manifest_says_where_it_came_from(saved: Saved, tmp_path: Path) -> None:
    done = adopt(saved.request("TP2 DP2"), tmp_path)
    manifest = read_manifest(done.folder / "manifest.json")
    facts = manifest.facts
    assert facts["source"] == {
        "format": "deepspeed", "folder": "TP2 DP2", "names": "names.yaml", "weights_only": False,
        "averaged_replicas": False, "step": 3, "samples": 24, "tokens": None,
    }  # fmt: skip
    assert facts["layout"] == {"tensor": 2, "pipeline": 1, "data": 2, "sequence_parallel": False, "zero_stage": 1}
    assert (facts["step"], facts["samples"], facts["tokens"], facts["optimizer_steps"]) == (3, 24, 384, 3)
    assert (facts["run"], facts["launch"], facts["seed"]) == ("tr900a-28K-small", "import", 7)
    assert len(manifest.parents) == 2


@pytest.mark.parametrize("name", VARIANTS)
def test_every_stage_and_precision_arrives_bit_for_bit(name: str, saved: Saved, tmp_path: Path) -> None:
    """Masters are those that DeepSpeed's own `zero_to_fp32` finds; under ZeRO 0 in fp32 they are the weights."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    bf16 = VARIANTS[name][1]
    arguments = overrides(training__precision="bf16") if bf16 else []
    found = contents(adopt(saved.request(name, *arguments), tmp_path).folder)
    if VARIANTS[name][0] > 0 and name != "BF16_Optimizer":  # which zero_to_fp32 does not know
        theirs = get_fp32_state_dict_from_zero_checkpoint(str(saved.folder / name))
        names = read_name_map(saved.names)
        expected = {names.to_ours(key): value for key, value in theirs.items() if value is not None}
        assert {key for key, kind in found if kind == "exp_avg"} == expected.keys()
        for key, value in expected.items():
            master = found[key, "master" if bf16 else "weight"]
            assert torch.equal(master.flatten(), value.flatten()), key
    kinds = {kind for _, kind in found}
    assert kinds == {"weight", "exp_avg", "exp_avg_sq"} | ({"master"} if bf16 else set())
    for key, kind in found:
        if kind == "master":
            assert torch.equal(found[key, "weight"], found[key, "master"].bfloat16())
            assert not torch.equal(found[key, "weight"].float(), found[key, "master"])
        if kind == "exp_avg_sq":
            assert found[key, kind].max() > 0


def test_moments_do_not_depend_on_the_stage(saved: Saved, tmp_path: Path) -> None:
    """ZeRO 0 keeps them whole, by parameter: what 2 and 3 share out must be the same."""
    whole, *shared = (
        contents(adopt(saved.request(name), tmp_path / name).folder) for name in ("ZeRO 0", "ZeRO 2", "ZeRO 3")
    )
    for found in shared:
        assert found.keys() == whole.keys()
        for (name, kind), tensor in whole.items():
            if not name.endswith("query_key_value.linear.bias"):  # keys' biases change nothing: theirs is noise
                scale = tensor.abs().max().item()  # the stages sum in another order
                torch.testing.assert_close(found[name, kind], tensor, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", FROZEN)
def test_a_parameter_that_they_froze(name: str, saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"it lacks exp_avg of positions.weight, exp_avg_sq of positions.weight"):
        adopt(saved.request(name), tmp_path / "run")
    request = saved.request(name, "--training.frozen", '["positions.*"]')
    found = contents(adopt(request, tmp_path / "run").folder)
    assert {kind for key, kind in found if key == "positions.weight"} == {"weight"}
    expected = contents(
        adopt(replace(request, folder=saved.folder / "ZeRO 2", weights_only=True), tmp_path / "2").folder
    )
    assert (found["positions.weight", "weight"] - expected["positions.weight", "weight"]).abs().max() < 0.1
    other = contents(adopt(replace(request, folder=saved.folder / next(iter(FROZEN))), tmp_path / "other").folder)
    assert torch.equal(found["positions.weight", "weight"], other["positions.weight", "weight"])


def test_a_run_begins_from_its_own_imported_weights(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path))
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    request = replace(saved.request("TP2 DP2"), weights_only=True)
    run = run_directory(request.config)
    done = adopt(request, run.path)
    assert (done.folder, done.optimizer_steps) == (run.checkpoints / "weights-0000000000", 0)
    whole, alone = contents(adopt(saved.request("TP2 DP2"), tmp_path / "whole").folder), contents(done.folder)
    assert alone.keys() == {key for key in whole if key[1] == "weight"}
    assert all(torch.equal(alone[key], tensor) for key, tensor in whole.items() if key[1] == "weight")

    (problem,) = launch_problems(LaunchFacts(ReadRun(request.config), LaunchTarget(nodes=None)))
    assert f"to begin from weights alone, name them (--init_from {run.name}@STEP/weights)" in problem
    config = saved.config(f"--init_from={run.name}@0/weights")
    facts = LaunchFacts(ReadRun(config), LaunchTarget(nodes=None))
    assert (launch_problems(facts), facts.consumed_samples) == ([], 0)
    launch = start_launch(config)
    assert facts.starting_point is not None
    write_initial_weights(launch.directory, facts.starting_point.weights)
    run_on_ranks(train_launch, 1, str(launch.directory))
    assert len(losses(launch.run)) == 8
    first = list_checkpoints(launch.run.checkpoints)[-1]
    assert read_manifest(done.folder / "manifest.json").id in read_manifest(first / "manifest.json").parents


@pytest.mark.parametrize("name", ["TP2 DP2", "ZeRO 3"])
def test_deepspeeds_own_universal_checkpoint_is_the_same(name: str, saved: Saved, tmp_path: Path) -> None:
    """Its converter keeps shapes under ZeRO 1, and flat parameters under ZeRO 3."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    (folder,) = (saved.folder / name).glob("global_step*")
    options = SimpleNamespace(
        input_folder=str(folder), output_folder=str(tmp_path / "universal"),
        num_extract_workers=1, num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=False,
    )  # fmt: skip
    convert(options)
    request = replace(saved.request(name), folder=tmp_path / "universal")
    converted, direct = adopt(request, tmp_path / "converted"), adopt(saved.request(name), tmp_path / "direct")
    assert converted.progress == direct.progress
    assert converted.optimizer_steps == direct.optimizer_steps
    found, expected = contents(converted.folder), contents(direct.folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_deepspeed_continues_from_our_export(saved: Saved, tmp_path: Path) -> None:
    direct = adopt(saved.request("TP2 DP2"), tmp_path / "run")
    manifest = export_universal(direct.folder, tmp_path / "export", read_name_map(saved.names))
    assert (manifest.kind, manifest.parents) == ("export", [read_manifest(direct.folder / "manifest.json").id])
    continued = run_on_ranks(load_universal_and_go_on, 4, saved.config(), str(tmp_path / "export"), 3, 5)[0]
    assert max(abs(ours - theirs) / theirs for ours, theirs in zip(continued, saved.losses, strict=True)) < 1e-5
    again = adopt(replace(saved.request("TP2 DP2"), folder=tmp_path / "export"), tmp_path / "back")
    found, expected = contents(again.folder), contents(direct.folder)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_zero_0_with_groups_needs_their_names(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text(NAMES)
    with pytest.raises(TrainyardError, match="the optimizer's 2 groups number their parameters"):
        adopt(replace(saved.request("ZeRO 0"), names=str(tmp_path / "names.yaml")), tmp_path / "run")
    (tmp_path / "names.yaml").write_text(NAMES + 'groups: [["*weight"], ["*bias"]]\n')
    with pytest.raises(TrainyardError, match=r"by the names it would have|has another order than the module"):
        adopt(replace(saved.request("ZeRO 0"), names=str(tmp_path / "names.yaml")), tmp_path / "run")


def test_shares_of_another_rank_are_noticed(saved: Saved, tmp_path: Path) -> None:
    """Two ranks' files exchanged: the sizes are right, the elements are not."""
    copy = Path(shutil.copytree(saved.folder / "TP2 DP2", tmp_path / "copy"))
    first, second = (copy / "global_step3" / f"zero_pp_rank_0_mp_rank_0{rank}_optim_states.pt" for rank in (0, 1))
    first.rename(tmp_path / "other")
    second.rename(first)
    (tmp_path / "other").rename(second)
    with pytest.raises(TrainyardError, match=r"its fp32 master in the optimizer's state differ by up to"):
        adopt(replace(saved.request("TP2 DP2"), folder=copy), tmp_path / "run")
    assert not (tmp_path / "run").exists()
