"""Small tokenizers of every kind, and blocks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.reading.block import Block
from tests.data_tools.conftest import TEXTS

TRAINED_ON = [*TEXTS, *(text for text in HARD_TEXTS if "<" not in text)]
KINDS = ("byte-level", "sentencepiece-bpe", "wordpiece", "unigram", "model", "model-bpe")


def lines(texts: Sequence[str], first: int = 1, origin: str = "part.jsonl") -> Block:
    """A block of lines of JSON."""
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    return Block("lines", content, origin, "line", first, len(texts), {"line": first + len(texts)}, len(content))


def cut(texts: Sequence[str], size: int, origin: str = "part.jsonl") -> list[Block]:
    """The same texts in blocks of this many."""
    return [lines(texts[at : at + size], at + 1, origin) for at in range(0, len(texts), size)]


def _json(kind: str, folder: Path) -> Path:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>"]
    if kind == "sentencepiece-bpe":
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*special, *bytes_], show_progress=False)
    elif kind == "wordpiece":
        special = ["[UNK]", "[CLS]", "[SEP]"]
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    made.train_from_iterator(TRAINED_ON, trainer)
    spec = json.loads(made.to_str())
    if kind == "sentencepiece-bpe":  # bytes are pieces of the model, as in Llama 2, not added tokens
        spec["added_tokens"] = [each for each in spec["added_tokens"] if each["content"] in special]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    ending = "[SEP]" if kind == "wordpiece" else "</s>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": ending}))
    return folder


def _model(kind: str, folder: Path) -> Path:
    import sentencepiece

    sentences = (text.replace("\0", "") for text in TRAINED_ON)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([each for each in sentences if each.strip()]), model_prefix=str(folder / "small"),
        vocab_size=900, hard_vocab_limit=False, byte_fallback=True, minloglevel=2, character_coverage=0.99,
        model_type="bpe" if kind == "model-bpe" else "unigram",
    )  # fmt: skip
    return folder / "small.model"


@pytest.fixture(scope="session")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[[str], Path]:
    """A tokenizer of each kind, made once."""
    made = {"byte-level": tokenizer_folder}

    def of(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = _model(kind, folder) if kind.startswith("model") else _json(kind, folder)
        return made[kind]

    return of
