"""Exports at branches of the hub, one for each step: what is sent, what is refused, what `from_pretrained` finds."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.location import revision_location
from megatron_patches.artefacts.manifest import Manifest, read_manifest
from megatron_patches.errors import TrainyardError
from tests.servers.hub import TOKEN, Hub, hub_server
from tests.small_artefacts import RUN, make_artefact
from tools.commands.inventory import command_line as inventory
from tools.commands.sync_to_hub import command_line as sync_to_hub

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("places")]  # a server
REPOSITORY = "tester/yard"
TO = f"hf://{REPOSITORY}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with hub_server() as (address, hub):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def export(places: Path, step: int, **more: bytes) -> tuple[Path, Manifest]:
    """A small export of a run that is here."""
    folder = places / "runs" / RUN / "exports" / f"step-{step}"
    files = {"config.json": b"{}", "model.safetensors": f"weights of {step}".encode(), "extra/notes.txt": b"why"}
    files |= {name.replace("_", "."): content for name, content in more.items()}
    return folder, make_artefact(folder, "export", files, {"run": RUN, "step": step})


def call(*arguments: str) -> Result:
    return CliRunner().invoke(sync_to_hub.app, list(arguments), catch_exceptions=True)


def lines(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = call(*arguments, "--json")
    assert done.exit_code == code, (done.output, done.exception)
    return list(json.loads(done.stdout))


def push(folder: Path | str, revision: str, *more: str, code: int = 0) -> dict[str, Any]:
    (line,) = lines("push", str(folder), "--to", TO, "--revision", revision, *more, code=code)
    return line


def test_each_step_has_a_branch_of_its_own(places: Path, hub: Hub, tmp_path: Path) -> None:
    first, _ = export(places, 1000)
    second, manifest = export(places, 2000, model_safetensors_index_json=b"{}")
    assert push(first, "main")["word"] == "sent"
    kept = dict(hub.files[REPOSITORY])
    assert push(second, "step-2000", "--dry-run")["word"] == "would be sent"
    assert f"{REPOSITORY}@step-2000" not in hub.files
    assert (push(second, "step-2000")["word"], push(first, "step-1000")["word"]) == ("sent", "sent")
    assert hub.files[REPOSITORY] == kept
    assert sorted(hub.files[f"{REPOSITORY}@step-2000"]) == sorted(
        ["manifest.json", *(file.path for file in manifest.files)]
    )
    commits = hub.commits
    assert push(second, "step-2000")["word"] == "present"
    assert hub.commits == commits
    (line,) = lines("pull", str(tmp_path / "back"), "--from", TO, "--revision", "step-2000")
    assert line["word"] == "fetched"
    assert read_manifest(tmp_path / "back" / "manifest.json") == manifest
    assert (tmp_path / "back" / "extra" / "notes.txt").read_bytes() == b"why"


def test_a_branch_begins_empty_whatever_the_main_one_holds(places: Path, hub: Hub) -> None:
    folder, manifest = export(places, 1000)
    hub.files[REPOSITORY] = {".gitattributes": b"*", "pytorch_model.bin": b"of others", "runs/a/b.txt": b"c"}
    hub.large[REPOSITORY] = set()
    assert push(folder, "step-1000")["word"] == "sent"
    wanted = [".gitattributes", "manifest.json", *(file.path for file in manifest.files)]
    assert sorted(hub.files[f"{REPOSITORY}@step-1000"]) == sorted(wanted)
    assert len(hub.files[REPOSITORY]) == 3
    assert (
        "holds 2 files that are none of this artefact's (pytorch_model.bin" in push(folder, "main", code=2)["problem"]
    )


def test_the_copy_is_on_record_where_it_lies(places: Path, hub: Hub) -> None:
    folder, manifest = export(places, 1000)
    push(folder, "step-1000")
    (copy,) = read_copies(places / "runs" / RUN)
    assert (copy.id, copy.location, copy.name, copy.whole) == (manifest.id, f"{TO}@step-1000", "", True)
    assert copy.verified

    def where() -> str:
        done = CliRunner().invoke(inventory.app, ["where", str(folder), "--check"], catch_exceptions=False)
        return done.output

    assert f"{TO}@step-1000 " in f"{where()} ".replace("\n", " \n")
    hub.files[f"{REPOSITORY}@step-1000"]["config.json"] = b"[]"
    assert f"{TO}@step-1000/config.json has sha256" in where()
    assert push(folder, "step-1000", code=1)["problem"].endswith("what is damaged is sent again")
    assert push(folder, "step-1000", "--replace")["word"] == "sent"


def test_an_export_of_another_place_is_recorded_in_its_run(places: Path, hub: Hub, tmp_path: Path) -> None:
    folder, _ = export(places, 1000)
    folder.rename(tmp_path / "out")
    assert push(tmp_path / "out", "step-1000")["word"] == "sent"
    assert len(read_copies(places / "runs" / RUN)) == 1
    (places / "runs" / RUN / "copies").rename(tmp_path / "copies")
    (places / "runs" / RUN / "exports").rmdir()
    (places / "runs" / RUN).rmdir()
    assert push(tmp_path / "out", "step-1000")["word"] == "present; no run here to record it in"


def test_another_artefact_is_replaced_when_that_is_asked_for(places: Path, hub: Hub) -> None:
    old, _ = export(places, 1000, model_safetensors_index_json=b"{}")
    new, manifest = export(places, 2000)
    push(old, "step")
    assert "holds another export" in push(new, "step", code=2)["problem"]
    assert push(new, "step", "--replace")["word"] == "sent"
    wanted = ["manifest.json", *(file.path for file in manifest.files)]
    assert sorted(hub.files[f"{REPOSITORY}@step"]) == sorted(wanted), "a file of the former export stayed"


def test_what_is_invalid_is_not_sent_and_its_copy_says_so(places: Path, hub: Hub, tmp_path: Path) -> None:
    folder, _ = export(places, 1000)
    push(folder, "step-1000")
    arguments = ["invalidate", str(folder), "--because", "norms are swapped"]
    assert CliRunner().invoke(inventory.app, arguments, catch_exceptions=False).exit_code == 0
    assert push(folder, "step-1000")["word"] == "status renewed"
    assert "marks this export invalid" in push(folder, "step-9", code=1)["problem"]
    arguments = ["pull", str(tmp_path / "back"), "--from", TO, "--revision", "step-1000"]
    assert "norms are swapped. Pull another" in lines(*arguments, code=1)[0]["problem"]
    assert lines(*arguments, "--allow-invalid")[0]["word"] == "fetched"


def test_a_tag_or_a_commit_takes_no_files(places: Path, hub: Hub) -> None:
    folder, _ = export(places, 1000)
    hub.tags.append("v1")
    for revision in ("v1", "0123456789" * 4):
        assert "is a tag or a commit" in push(folder, revision, code=2)["problem"]
        assert f"{REPOSITORY}@{revision}" not in hub.files


def test_a_revision_that_is_not_there(places: Path, hub: Hub, tmp_path: Path) -> None:
    push(export(places, 1000)[0], "step-1000")
    (line,) = lines("pull", str(tmp_path / "back"), "--from", TO, "--revision", "step-7", code=2)
    assert "there is no such revision" in line["problem"]
    assert not list(tmp_path.glob("back*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "s3://bucket/x", "--revision", "a"], "only repositories of the hub"),
        (["--to", "hf://buckets/org/x", "--revision", "a"], "only repositories of the hub"),
        (["--to", "hf://org/x/folder", "--revision", "a"], "name the repository alone"),
        (["--to", "hf://org/x@b", "--revision", "a"], "name the repository alone"),
        (["--to", "hf://org/x", "--revision", "a/b"], "a revision with slashes"),
        (["--to", "hf://org/x", "--revision", "a b"], "the hub's names have"),
        *(
            (["--to", "hf://org/x", "--revision", name], "no branch has such a name")
            for name in ("a..b", "a.lock", "HEAD", "{run}", "${STEP}")
        ),
        (["--to", "hf://org/x", "--revision", "a", "--steps", "5"], "one artefact, whole"),
        (["--to", "hf://org/x", "--revision", "a", "--tar-below", "1k"], "one artefact, whole"),
        (["--revision", "a"], "name what is brought"),
    ],
)
def test_what_is_refused(places: Path, arguments: list[str], told: str) -> None:
    folder, _ = export(places, 1000)
    done = call("push", str(folder), *arguments)
    assert isinstance(done.exception, TrainyardError), done.output
    assert told in str(done.exception)


def test_names_in_an_address() -> None:
    assert str(revision_location("hf://org/{run}", "step-1", "tr1")) == "hf://org/tr1@step-1"
    assert str(revision_location("hf://datasets/org/x", "step-1")) == "hf://datasets/org/x@step-1"
    with pytest.raises(TrainyardError, match="write the repository's name in place of"):
        revision_location("hf://org/{run}", "step-1")


LOAD = """\
import sys
from transformers import AutoModelForCausalLM
for step in (1000, 2000):
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], revision=f"step-{step}")
    assert all((values == step).all() for values in model.state_dict().values()), step
"""
SHAPES = {
    "wte.weight": (16, 8), "wpe.weight": (8, 8), "ln_f.weight": (8,), "ln_f.bias": (8,),
    "h.0.ln_1.weight": (8,), "h.0.ln_1.bias": (8,), "h.0.ln_2.weight": (8,), "h.0.ln_2.bias": (8,),
    "h.0.attn.c_attn.weight": (8, 24), "h.0.attn.c_attn.bias": (24,),
    "h.0.attn.c_proj.weight": (8, 8), "h.0.attn.c_proj.bias": (8,),
    "h.0.mlp.c_fc.weight": (8, 32), "h.0.mlp.c_fc.bias": (32,),
    "h.0.mlp.c_proj.weight": (32, 8), "h.0.mlp.c_proj.bias": (8,),
}  # fmt: skip


def test_transformers_loads_each_step_by_its_revision(places: Path, hub: Hub, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save

    described = {"model_type": "gpt2", "vocab_size": 16, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    for step in (1000, 2000):
        tensors = {f"transformer.{name}": np.full(shape, step, np.float32) for name, shape in SHAPES.items()}
        files = {"config.json": json.dumps(described).encode(), "model.safetensors": save(tensors, {"format": "pt"})}
        make_artefact(tmp_path / f"export-{step}", "export", files, {"run": RUN, "step": step})
        assert push(tmp_path / f"export-{step}", f"step-{step}")["word"].startswith("sent")
    settings = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    subprocess.run([sys.executable, "-c", LOAD, REPOSITORY], env={**os.environ, **settings}, check=True)
