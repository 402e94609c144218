"""`tools/import-hf`: what it shows of a folder, and what it says when it is called wrongly."""

import json
import shutil
from pathlib import Path

import pytest

from megatron_patches.configuration.yaml_text import parse_yaml
from tests.command_line import verb
from tests.small_training import SmallData
from tools.commands import import_hf

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 48, "n_head": 4, "n_inner": 80, "n_positions": 24}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose model has no weights to speak of."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({**GPT2, "vocab_size": 384, "tie_word_embeddings": False}))
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (made / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return made


def test_the_section_to_paste(
    folder: Path, small_data: SmallData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show = verb(import_hf, monkeypatch, capsys)
    told = show(folder, "--show").stdout
    assert "# gpt2, up to 24 positions" in told and "# no tokenizer that can be read: " in told
    assert all(len(line) <= 80 and line.isprintable() for line in told.splitlines())
    assert parse_yaml(told, "--show")["model"] == {
        "layers": 2, "hidden_size": 48, "attention_heads": 4, "ffn_size": 80, "vocab_size": 384, "tied_head": False,
        "hidden_dropout": 0.1, "attention_dropout": 0.1, "embedding_dropout": 0.1,
    }  # fmt: skip
    for file in (small_data.folder / "tokenizer").glob("tokenizer*.json"):
        shutil.copy(file, folder / file.name)
    assert ": tokenizer.json, tokenizer_config.json\n" in show(folder, "--show").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{folder}",), "name the folder and a run to import into it, or the folder and --show alone"),
        (("{folder}", "tr0a-4M-stdlib", "--show"), "name the folder and a run to import into it"),
        (("{folder}", "tr0a-4M-stdlb"), "there is no run tr0a-4M-stdlb; nearest: tr0a-4M-stdlib"),
        (("{folder}/nothing", "--show"), "is no folder; name one that holds a config.json"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...],
    says: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = verb(import_hf, monkeypatch, capsys)(*(each.format(folder=folder) for each in arguments))
    assert done.returncode == 2
    assert says in done.stderr
