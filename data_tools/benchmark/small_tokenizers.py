"""Tokenizers of each kind, trained in seconds on the text that is measured."""

import io
import json
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from data_tools.benchmark.texts import texts_of
from data_tools.text.tokenizer_training import train_bpe

# Control tokens that no text spells: a Unigram finds "</s>" in a text even where libraries are told to find none, and
# then its ids depend on the program, not on the tokenizer.
END = "<|end-of-measured-document|>"
UNKNOWN = "<|unknown-in-measured-text|>"
_SENTENCE = 4000
"""bytes of a line that SentencePiece learns from at most; it leaves out longer ones"""


class Kind(StrEnum):
    """What a tokenizer is made of."""

    BPE = "bpe"
    WORDPIECE = "wordpiece"
    UNIGRAM = "unigram"
    SENTENCEPIECE = "sentencepiece"


def train_small(kind: Kind, sample: Path, folder: Path, vocab_size: int) -> None:
    """Makes the folder: byte-level BPE as `tools/tokenizer train` does, others as BERT and T5 have them.

    Args:
        sample: `.jsonl` to learn from.
        vocab_size: ids, or fewer where the text does not yield that many (bpe: it is refused then).
    """
    if kind is Kind.BPE:
        train_bpe([sample], folder, vocab_size)
        return
    folder.mkdir(parents=True)
    makers: dict[Kind, Callable[[Iterator[str], Path, int], None]] = {
        Kind.WORDPIECE: _wordpiece, Kind.UNIGRAM: _unigram, Kind.SENTENCEPIECE: _sentencepiece,
    }  # fmt: skip
    makers[kind](texts_of(sample), folder, vocab_size)


def _wordpiece(texts: Iterator[str], folder: Path, vocab_size: int) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    library = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=[UNKNOWN, END], show_progress=False)
    library.train_from_iterator(texts, trainer)
    _write(library, folder)


def _unigram(texts: Iterator[str], folder: Path, vocab_size: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=[UNKNOWN, END], unk_token=UNKNOWN, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    _write(library, folder)


def _write(library: Any, folder: Path) -> None:
    library.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "unk_token": UNKNOWN}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def _sentencepiece(texts: Iterator[str], folder: Path, vocab_size: int) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines() if 0 < len(line.encode()) < _SENTENCE),
        model_writer=model, vocab_size=vocab_size, hard_vocab_limit=False, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,  # as T5 has them; transformers' T5Tokenizer goes by these numbers
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
