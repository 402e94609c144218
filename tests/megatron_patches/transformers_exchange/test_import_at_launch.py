"""`init_from` of a folder of transformers: the launch imports it once, before its ranks start; imports that fail."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.manifest import read_manifest, verify_files
from megatron_patches.checkout import CHECKOUT
from tests.megatron_patches.transformers_exchange.folders import write_run
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

pytestmark = pytest.mark.slow

RUN = "tr900b-28K-child"
FAILING = "tr900c-28K-failing"


def use_places(place: Path) -> None:
    os.environ |= {f"TRAINYARD_{name}": str(place / name.lower()) for name in ("RUNS", "CACHE", "DATA")}


def launch_thrice(place: Path, folders: Path, data: SmallData) -> dict[str, Any]:
    """What three launches say, the last one after the folder changed, and what a plan says before them."""
    from megatron_patches.launch.facts import LaunchTarget
    from megatron_patches.launch.plan import main as plan
    from megatron_patches.launch.plan import plan_run, summary

    use_places(place)
    folder = shutil.copytree(folders / "llama", place / "llama")
    path = write_run(place / "tr900-tests", RUN, data, folder)
    words = [f"--init_from={folder}", "--evaluation=null"]
    found: dict[str, Any] = {"planned": summary(plan_run(path, words, LaunchTarget(nodes=None, gpu=False)))}
    found["made"] = (place / "runs" / RUN / "imports").exists()
    for number in (1, 2, 3):
        if number == 3:
            spoilt = folder / "config.json"
            spoilt.write_text(spoilt.read_text().replace("1e-06", "1e-05"))
            path.write_text(path.read_text().replace("1.0e-06", "1.0e-05"))
        told, line = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(line):
            code = plan([str(path), "--local", *words])
        assert code == 0, told.getvalue()
        start = Path(json.loads(line.getvalue().splitlines()[-1])["launch_directory"]) / "initial-weights.json"
        found[str(number)] = (told.getvalue(), json.loads(start.read_text()))
    return found


def fail(place: Path, folders: Path, data: SmallData) -> dict[str, tuple[str, list[str]]]:
    """What imports that fail say, and what they leave in the runs' folder."""
    import torch
    from safetensors.torch import load_file, save_file

    from megatron_patches.errors import TrainyardError
    from megatron_patches.models.gpt.transformers_formats.llama import LlamaFormat
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.run_directory import run_directory
    from megatron_patches.transformers_exchange import importing
    from megatron_patches.transformers_exchange.card import proof
    from megatron_patches.transformers_exchange.import_plan import open_data, plan_import

    use_places(place)
    run = load_run(write_run(place / "tr900-tests", FAILING, data, folders / "llama"))
    target = run_directory(run).checkpoints / "weights-0000000000"
    nan = shutil.copytree(folders / "llama", place / "nan")
    tensors = load_file(nan / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, nan / "model.safetensors", metadata={"format": "pt"})

    def attempt(folder: Path) -> tuple[str, list[str]]:
        try:
            importing.import_transformers(
                plan_import(folder, run, open_data(run)), target, importing.CardRequest("a test")
            )
            said = ""
        except (TrainyardError, OSError) as error:
            said = str(error)
        return said, sorted(each.name for each in target.parent.iterdir()) if target.parent.exists() else []

    found = {"nan": attempt(nan)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "find_spec", lambda name: None)
        found["no library"] = attempt(folders / "llama")
    with pytest.MonkeyPatch.context() as patch:
        pairs = LlamaFormat.pairs
        patch.setattr(LlamaFormat, "pairs", lambda *given: [swapped(each) for each in pairs(*given)])
        found["swapped"] = attempt(folders / "llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "write_manifest", full_disk)
        found["full disk"] = attempt(folders / "llama")
    assert proof.prove is importing.prove
    found["right"] = by_command(folders / "llama", place / "tr900-tests" / f"{FAILING}.yaml", target.parent)
    found["again"] = attempt(folders / "llama")
    return found


def by_command(folder: Path, run: Path, shelf: Path) -> tuple[str, list[str]]:
    """What `tools/import-hf` says, and what is there then."""
    from typer.testing import CliRunner

    from tools.commands.import_hf import app

    done = CliRunner().invoke(app, [str(folder), str(run), "--data.sequence_length=12"], catch_exceptions=False)
    return done.output, sorted(each.name for each in shelf.iterdir())


def swapped(pair: Any) -> Any:
    """Gate and up in each other's place, alike in both directions."""
    from dataclasses import replace

    if not pair.ours.endswith("mlp.up.linear.weight"):
        return pair
    return replace(pair, split=lambda ours: pair.split(ours.flip(0)), join=lambda parts: pair.join(parts).flip(0))


def full_disk(*ignored: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def launched(
    transformers_folders: Path, small_data: SmallData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("launched")
    return place, run_on_ranks(launch_thrice, 1, place, transformers_folders, small_data)[0]


def test_a_plan_says_what_a_launch_would_import(launched: tuple[Path, dict[str, Any]]) -> None:
    _, found = launched
    assert "(llama of transformers, F32, " in found["planned"]
    assert "it is imported, with a card, before the ranks start" in found["planned"]
    assert not found["made"]


def test_a_launch_imports_a_folder_once(launched: tuple[Path, dict[str, Any]]) -> None:
    place, found = launched
    (told, first), (again, second), (_, third) = (found[number] for number in "123")
    assert "importing " in told and "there and back bit for bit" in told and "imported with a card" in told
    assert "importing " not in again and "by an earlier launch" in again
    assert first["folder"] == second["folder"] and first["id"] == second["id"]
    assert third["folder"] != first["folder"] and third["id"] != first["id"]
    assert {Path(each["folder"]).parent for each in (first, third)} == {place / "runs" / RUN / "imports"}
    manifest = read_manifest(Path(first["folder"]) / "manifest.json")
    assert manifest.id == first["id"]
    assert verify_files(manifest, Path(first["folder"]), hashes=True) == []
    assert manifest.by.proof is not None and manifest.by.proof["source"] == manifest.id
    source = manifest.facts["source"]
    assert isinstance(source, dict)
    assert (source["format"], source["model_type"], source["folder"]) == ("transformers", "llama", "llama")


@pytest.fixture(scope="module")
def failed(
    transformers_folders: Path, small_data: SmallData, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, list[str]]]:
    place = tmp_path_factory.mktemp("failed")
    return run_on_ranks(fail, 1, place, transformers_folders, small_data)[0]


@pytest.mark.parametrize(
    ("case", "says", "left"),
    [
        ("nan", "model.layers.1.mlp.up_proj.weight: a number is NaN or infinite", []),
        ("no library", "transformers, which is not installed here: pip install -c constraints.txt transformers", []),
        ("swapped", "logits: ", []),
        ("full disk", "No space left on device", []),
        ("right", f"a run begins with them by init_from: {FAILING}@0/weights", ["weights-0000000000"]),
        ("again", "weights-0000000000 exists; begin from it, or move it away", ["weights-0000000000"]),
    ],
)
def test_an_import_that_fails_leaves_nothing(
    failed: dict[str, tuple[str, list[str]]], case: str, says: str, left: list[str]
) -> None:
    said, there = failed[case]
    assert says in said
    assert there == left


def test_a_name_of_the_hub_is_not_fetched(small_data: SmallData, tmp_path: Path) -> None:
    from data_tools.run_data import RunData
    from megatron_patches.errors import Missing
    from megatron_patches.launch.init_from.resolution import find_starting_point

    config = small_data.run(tmp_path, [], RUN)
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
    with pytest.raises(Missing, match=r"hf download openai-community/gpt2 --local-dir FOLDER"):
        find_starting_point("openai-community/gpt2", config, data)
    with pytest.raises(Missing, match=r"or a transformers folder$"):
        find_starting_point(str(tmp_path / "nothing"), config, data)
