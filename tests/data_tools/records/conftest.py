"""A tokenizer with the control tokens of several chat templates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools.text.tokenizer_training import train_bpe

CONTROL = ("<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<|user|>", "<|end|>")
TEXT = "User: Why does the dog run?\n\nAssistant: The dog runs over the hill. System: You answer.\n"


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE without a template, of which `<|endoftext|>` ends documents."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "text.jsonl").write_text(json.dumps({"text": TEXT * 3}) + "\n")
    train_bpe([folder / "text.jsonl"], folder / "bpe", 300, CONTROL)
    return folder / "bpe"


@pytest.fixture
def with_template(tmp_path: Path, chat_tokenizer: Path) -> Callable[..., Path]:
    """The same tokenizer with a template, and with other settings in its configuration."""

    def make(template: str | None, **settings: object) -> Path:
        folder = tmp_path / "with-template"
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_bytes((chat_tokenizer / "tokenizer.json").read_bytes())
        config = {**json.loads((chat_tokenizer / "tokenizer_config.json").read_text()), **settings}
        if template is not None:
            config["chat_template"] = template
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return folder

    return make
