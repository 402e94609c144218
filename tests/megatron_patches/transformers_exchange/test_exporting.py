"""Exports load in transformers, say the same logits, and appear whole or not at all."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import verify_files
from megatron_patches.atomic_files import HashingWriter
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.transformers_exchange import exporting
from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers, vocabulary_notes
from tests.megatron_patches.transformers_exchange.checkpoints import (
    FAMILIES,
    left_in,
    manifest_of,
    save_random,
    small_run,
)
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

IDS = [5, 300, 17, 90, 41, 5]


def export_each(folder: Path, data: SmallData) -> dict[str, Any]:
    """Of each family in fp32: what our model and the loaded export say, and what is in the folder."""
    return {family: _export_one(folder / family, data, family) for family in FAMILIES} | {
        "masters": _export_masters(folder / "masters", data)
    }


def _export_one(folder: Path, data: SmallData, family: str) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from megatron_patches.transformers_exchange.card.ours import our_model
    from megatron_patches.transformers_exchange.card.source import open_source

    config = small_run(data, folder, family)
    checkpoint = save_random(folder, config)
    told: list[str] = []
    request = ExportRequest(checkpoint, folder / "out", format=family, shard_bytes=40_000, command="tools/export-hf")
    made = export_transformers(request, told.append)
    model, info = AutoModelForCausalLM.from_pretrained(folder / "out", output_loading_info=True)
    with torch.no_grad():
        theirs = model.eval()(torch.tensor([IDS])).logits[0]
    with our_model(open_source(checkpoint, manifest_of(checkpoint)), config, by_block=False) as our:
        (ours,) = next(our.logits(torch.tensor([IDS]), [torch.arange(len(IDS))]))
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    text = "a word abc, and another one"
    return {
        "theirs": theirs.tolist(), "ours": ours.tolist(),
        "unused": {key: sorted(map(str, each)) for key, each in info.items() if key != "error_msgs"}, "told": told,
        "ids": AutoTokenizer.from_pretrained(folder / "out")(text)["input_ids"], "own ids": tokenizer.encode(text),
        "notes": made.notes, "eos": model.generation_config.eos_token_id, "tied": model.config.tie_word_embeddings,
        "end": tokenizer.end_of_document, "vocabulary": model.config.vocab_size, "dtype": str(model.dtype),
    }  # fmt: skip


def _export_masters(folder: Path, data: SmallData) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    checkpoint = save_random(folder, small_run(data, folder, training__precision="bf16"), masters=True)
    export_transformers(ExportRequest(checkpoint, folder / "stored"))
    export_transformers(ExportRequest(checkpoint, folder / "masters", weights="masters", by_block=True))
    models = [AutoModelForCausalLM.from_pretrained(folder / name) for name in ("stored", "masters")]
    rows = [model.transformer.ln_f.weight.float() for model in models]
    return {
        "dtypes": [str(model.dtype) for model in models],
        "difference": (rows[1] - rows[0]).mean().item(),
        "facts": manifest_of(folder / "masters").facts["weights"],
    }


@pytest.fixture(scope="module")
def exported(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("exports")
    return folder, run_on_ranks(export_each, 1, folder, small_data)[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_loads_and_says_the_same(exported: tuple[Path, dict[str, Any]], family: str) -> None:
    folder, found = exported[0] / family / "out", exported[1][family]
    torch.testing.assert_close(torch.tensor(found["theirs"]), torch.tensor(found["ours"]), rtol=0, atol=1e-4)
    assert max(map(max, found["theirs"])) > 1
    assert not any(found["unused"].values()), "tensors that the model lacks, or that it has beside them"
    assert found["ids"] == found["own ids"]
    assert found["eos"] == found["end"] == 0
    assert found["tied"] == (family in ("gpt2", "bloom"))
    assert found["dtype"] == "torch.float32"
    assert (found["vocabulary"], bool(found["notes"])) == ((390, True) if family == "gpt2" else (384, False))
    manifest = manifest_of(folder)
    assert verify_files(manifest, folder, hashes=True) == []
    assert sorted(file.path for file in manifest.files) == sorted(set(left_in(folder)) - {"manifest.json"})


@pytest.mark.slow
def test_shards_have_an_index_and_are_told(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, found = exported[0] / "llama" / "out", exported[1]["llama"]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = [name for name in left_in(folder) if name.endswith(".safetensors")]
    assert len(shards) > 2
    assert shards == [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    assert set(index["weight_map"].values()) == set(shards)
    from safetensors import safe_open

    held: dict[str, str] = {}
    size = 0
    for shard in shards:
        with safe_open(folder / shard, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            held |= dict.fromkeys(file.keys(), shard)
            bytes_here = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
        assert bytes_here <= 40_000 or len([each for each in held.values() if each == shard]) == 1
        size += bytes_here
    assert held == index["weight_map"]
    assert size == index["metadata"]["total_size"]
    assert [each.partition(",")[0] for each in found["told"]] == ["tokenizer", *shards, "card"]


@pytest.mark.slow
def test_masters_are_exported_in_fp32(exported: tuple[Path, dict[str, Any]]) -> None:
    found = exported[1]["masters"]
    assert found["dtypes"] == ["torch.bfloat16", "torch.float32"]
    assert found["difference"] == pytest.approx(1, abs=0.01)
    assert found["facts"] == "masters"
    card = json.loads((exported[0] / "masters" / "masters" / "card.json").read_text())
    assert (card["by_block"], card["tensors"]["dtype"]) == (True, "F32")


@pytest.mark.slow
def test_the_manifest_says_where_it_came_from(exported: tuple[Path, dict[str, Any]]) -> None:
    folder = exported[0] / "gpt2"
    saved = manifest_of(folder / "tr900a-28K-small" / "checkpoints" / "step-0000000008")
    made = manifest_of(folder / "out")
    assert (made.kind, made.parents) == ("export", [saved.id])
    assert {key: made.facts[key] for key in ("format", "run", "step", "samples", "tokens", "model_type")} == {
        "format": "transformers", "run": "tr900a-28K-small", "step": 8, "samples": 64, "tokens": 1024,
        "model_type": "gpt2",
    }  # fmt: skip
    assert made.facts["origin"] == {"id": saved.id, "run": "tr900a-28K-small", "step": 8, "launch": "0001"}


@pytest.fixture
def request_for(small_data: SmallData, tmp_path: Path) -> Callable[..., ExportRequest]:
    def make(masters: bool = False, **settings: object) -> ExportRequest:
        checkpoint = save_random(tmp_path / "runs", small_run(small_data, tmp_path, **settings), masters)
        return ExportRequest(checkpoint, tmp_path / "exports" / "out")

    return make


def proves_nothing(*given: object) -> Any:
    raise AssertionError("the card was reached")


def full_after(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which so many bytes fit, of what is written and hashed."""
    write, left = HashingWriter.write, [size]

    def fill_up(self: HashingWriter, content: Any) -> None:
        left[0] -= memoryview(content).nbytes
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, content)

    monkeypatch.setattr(HashingWriter, "write", fill_up)


@pytest.mark.parametrize("size", [0, 10_000, 50_000, 100_000])
def test_a_full_disk_leaves_nothing(
    size: int, request_for: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for()
    monkeypatch.setattr(exporting, "prove", proves_nothing)
    full_after(size, monkeypatch)
    with pytest.raises(OSError, match=r"No space left on device: .*/exports; free space there"):
        export_transformers(request)
    assert left_in(request.target.parent) == []


def test_a_limit_on_files_is_told_with_the_place(
    request_for: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: HashingWriter, content: Any) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    request = request_for()
    monkeypatch.setattr(HashingWriter, "write", fail)
    with pytest.raises(OSError, match=r"File too large: .*/exports; free space there"):
        export_transformers(request)


@pytest.mark.parametrize("error", [Refused("not equal"), KeyboardInterrupt(), SystemExit(143)])
def test_what_fails_at_the_card_leaves_nothing(
    error: BaseException, request_for: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: object, folder: Path, *others: object) -> Any:
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(left_in(folder))
        raise error

    request = request_for()
    monkeypatch.setattr(exporting, "prove", fail)
    with pytest.raises(type(error)):
        export_transformers(request)
    assert left_in(request.target.parent) == []


def test_a_disk_without_room_is_refused_before_weights_are_written(
    request_for: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 100_000})())
    with pytest.raises(Refused, match=r"the weights take 189 kB, 100 kB are free; free space, or name another folder"):
        export_transformers(request)
    assert left_in(request.target.parent) == []


def test_masters_that_are_not_there_are_refused(request_for: Callable[..., ExportRequest]) -> None:
    request = replace(request_for(), weights="masters")
    with pytest.raises(Refused, match=r"its weights are fp32, and so their own masters; take --weights stored"):
        export_transformers(request)
    assert not request.target.parent.exists()


def test_masters_of_weights_alone_are_refused(request_for: Callable[..., ExportRequest]) -> None:
    request = replace(request_for(training__precision="bf16"), weights="masters")
    with pytest.raises(Refused, match=r"holds no fp32 masters: it is one of weights alone\. Name the full checkpoint"):
        export_transformers(request)


def test_other_mistakes_are_said_before_anything_is_written(
    request_for: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    request = request_for()
    for changed, kind, message in (
        (replace(request, format="llama"), Refused, "in the way stand"),
        (replace(request, format="t5"), Refused, "format t5: this run's architecture can become gpt2"),
        (replace(request, text=tmp_path / "none"), Missing, "none"),
        (replace(request, target=tmp_path / "runs"), Refused, "exists; name another folder"),
        (replace(request, target=request.checkpoint / "config.yaml" / "out"), Refused, "config.yaml is no folder"),
        (replace(request, target=tmp_path / "x\udcff"), Refused, r"x\\xff is no UTF-8"),
    ):
        with pytest.raises(kind, match=message):
            export_transformers(changed)
    assert not request.target.parent.exists()


def test_a_model_that_continues_nothing_is_refused_before_anything_is_written(
    request_for: Callable[..., ExportRequest],
) -> None:
    request = request_for(data__sequence_length=1)
    with pytest.raises(Refused, match="has one position, and so reads no text"):
        export_transformers(request)
    assert not request.target.parent.exists()


def test_another_tokenizer_is_not_taken(request_for: Callable[..., ExportRequest], tmp_path: Path) -> None:
    request = request_for()
    path = request.checkpoint / "manifest.json"
    content = json.loads(path.read_text())
    from megatron_patches.artefacts.manifest import build_manifest, write_manifest

    facts = content["facts"] | {"identity": {"tokenizer": "f" * 64}}
    files = manifest_of(request.checkpoint).files
    write_manifest(path, build_manifest("checkpoint", files, facts))
    with pytest.raises(TrainyardError, match="ffffffffffff"):
        export_transformers(request)
    assert not request.target.parent.exists()


def test_parameters_that_the_configuration_does_not_have_are_named(
    request_for: Callable[..., ExportRequest], small_data: SmallData, tmp_path: Path
) -> None:
    from megatron_patches.run.reading import to_yaml

    request = request_for()
    other = small_run(small_data, tmp_path / "other", model__layers=5)
    (request.checkpoint / "config.yaml").write_text(to_yaml(other))
    with pytest.raises(Damaged, match=r"layers\.4\.attention_norm\.weight: none, expected \[32\]"):
        export_transformers(request)


def test_vocabularies_of_other_sizes_are_told() -> None:
    assert vocabulary_notes(384, 384) == []
    assert vocabulary_notes(385, 384) == ["id 384 is the model's and stands for no text: the tokenizer ends before it"]
    assert vocabulary_notes(400, 384) == [
        "16 ids from 384 to 399 are the model's and stand for no text: the tokenizer ends before them"
    ]
    assert vocabulary_notes(384, 385) == [
        "the tokenizer gives ids up to 384, the model has those below 384: text with the others cannot be read"
    ]
