"""Training a WordPiece tokenizer from text, as encoders such as BERT have it (Devlin et al. 2019).

The library's trainer numbers the pieces that continue a word in the order of a hash table, and settles ties between
merges by these numbers, so that two runs of it give different vocabularies. Here it is given all single characters
beforehand, in an order of ours, and what follows is determined.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.files.sources import FoundParts
from data_tools.text.tokenizer_folder import write_tokenizer
from data_tools.text.tokenizer_training import command_of, refuse_existing, refuse_fewer
from data_tools.text.training_text import TrainingText
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.errors import TrainyardError

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)
CHARACTERS = 1000
"""that the vocabulary has, the most frequent ones; a word with another one is [UNK]"""
CONTINUES = "##"
"""what a piece that continues a word begins with"""


def train_wordpiece(
    files: Sequence[Path],
    output: Path,
    vocab_size: int,
    lowercase: bool = False,
    sep_ends_documents: bool = False,
    json_key: str = "text",
    largest_document: int = LARGEST_DOCUMENT,
    on_found: Callable[[FoundParts], None] = lambda found: None,
) -> Manifest:
    """Trains a WordPiece and writes tokenizer.json, tokenizer_config.json, manifest.json.

    The same files give the same tokenizer, on any number of cores.

    Args:
        files: sources as `parts_of` takes them.
        output: folder to make; it appears when it is complete.
        vocab_size: ids in all: five special tokens, characters, pieces of words.
        lowercase: take accents and capitals away from every text, as BERT's uncased models do.
        sep_ends_documents: name [SEP] as the end-of-document token too; otherwise there is none.
        largest_document: bytes; longer ones are refused.
        on_found: hears what is read, and what is not.

    Raises:
        TrainyardError: the folder exists, the vocabulary is too small, or the text yields fewer pieces than asked.
    """
    refuse_existing(output)
    text = TrainingText(files, json_key, largest_document, on_found)
    alphabet = _Alphabet(text.texts(), lowercase)
    least = len(SPECIAL) + len(alphabet.first) + len(alphabet.further)
    if vocab_size < least:
        raise TrainyardError(
            f"vocabulary of {vocab_size}: {len(SPECIAL)} special tokens and the text's characters, at the beginning "
            f"and within words, are {least}; choose --vocab-size {least} or more"
        )
    vocabulary = _vocabulary(text.texts(), vocab_size, alphabet, lowercase)
    refuse_fewer(len(vocabulary), vocab_size)
    facts: dict[str, JsonValue] = {
        "algorithm": "WordPiece",
        "vocab_size": vocab_size,
        "lowercase": lowercase,
        "special_tokens": list(SPECIAL),
        "end_of_document": vocabulary[SEP] if sep_ends_documents else None,
        **text.facts(),
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK},
        **({"eos_token": SEP} if sep_ends_documents else {}),
        "clean_up_tokenization_spaces": False,
    }
    contents = {
        "tokenizer.json": _whole(vocabulary, lowercase).to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }
    asked = {"--lowercase": lowercase, "--sep-ends-documents": sep_ends_documents}
    options = ["--kind", "wordpiece", *(option for option, is_on in asked.items() if is_on)]
    return write_tokenizer(output, contents, facts, command_of(text, output, vocab_size, *options))


class _Alphabet:
    """The characters of a text.

    Args:
        texts: read to the end.
    """

    def __init__(self, texts: Iterator[str], lowercase: bool) -> None:
        from tokenizers import trainers

        library, normalizer = _empty(lowercase), _empty(lowercase).normalizer  # while it trains, its own is locked
        counts: Counter[str] = Counter()

        def counted() -> Iterator[str]:
            for text in texts:
                counts.update(normalizer.normalize_str(text))
                yield text

        # with a vocabulary of 0 the trainer keeps the single characters and learns no pieces
        library.train_from_iterator(counted(), trainers.WordPieceTrainer(vocab_size=0, show_progress=False))
        found = library.get_vocab().keys()
        first = {each for each in found if len(each) == 1}
        kept = set(sorted(first, key=lambda each: (-counts[each], each))[:CHARACTERS])
        self.first = sorted(kept)
        """characters"""
        self.further = sorted(each for each in found if len(each) > 1 and each.removeprefix(CONTINUES) in kept)
        """pieces of one character that continue a word"""


def _vocabulary(texts: Iterator[str], vocab_size: int, alphabet: _Alphabet, lowercase: bool) -> dict[str, int]:
    """Ids: of special tokens, characters, characters within words, then pieces in the order of learning."""
    from tokenizers import trainers

    given = [*SPECIAL, *alphabet.first, *alphabet.further]
    library = _empty(lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=given,
        initial_alphabet=alphabet.first,
        limit_alphabet=len(alphabet.first),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    found: dict[str, int] = library.get_vocab()
    learned = sorted(found.keys() - set(given), key=lambda each: found[each])
    return {piece: number for number, piece in enumerate([*given, *learned])}


def _empty(lowercase: bool) -> Any:
    """A library without a vocabulary: words are cut at spaces and punctuation, each Chinese character is one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    library = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return library


def _whole(vocabulary: dict[str, int], lowercase: bool) -> Any:
    """The library with a vocabulary; asked for special tokens, it puts a text between [CLS] and [SEP]."""
    from tokenizers import decoders, models, processors

    library = _empty(lowercase)
    library.model = models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN)
    library.decoder = decoders.WordPiece(prefix=CONTINUES, cleanup=False)
    library.post_processor = processors.BertProcessing((SEP, vocabulary[SEP]), (CLS, vocabulary[CLS]))
    library.add_special_tokens(list(SPECIAL))
    return library
