"""What `tools/preprocess` is asked for, and whether it can be done."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.datasets.indexed_dataset_format import appended, bin_path, idx_path
from data_tools.datasets.manifest import check_name_of, manifest_path
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.hugging_face_name import is_hub
from data_tools.records.record import RecordForm
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import storable

MOST_SHARES = 99_999
"""what the five digits of PREFIX-00003-of-00008 hold"""


@dataclass(frozen=True)
class PreprocessRequest:
    """What to tokenize, with what, and where to."""

    inputs: Sequence[Path | str]
    """Files, or folders of files, or hf:NAME."""
    output: Path
    """Prefix of the dataset; with several keys, of PREFIX_key for each. A share adds its number."""
    tokenizer: Path
    json_keys: Sequence[str] = ("text",)
    """Keys of the texts; records have their own."""
    records: RecordForm | None = None
    """Which records with answers are read; None: texts."""
    append_eod: bool = False
    """Whether each document ends with the tokenizer's end-of-document token; see `RecordEncoding` for records."""
    tokens: int | None = None
    """Reading stops after the document that brings the first key's dataset to this many tokens; None: all is read."""
    parse_special: bool = False
    """Whether text that spells a control token becomes it, as Megatron-LM has it."""
    largest_document: int = LARGEST_DOCUMENT
    """Bytes; longer documents are refused."""
    workers: int = 1
    overwrite: bool = False
    allow_invalid: bool = False
    """Whether the tokenizer may be one that was marked invalid."""
    arithmetic: ArithmeticRequest = field(default_factory=ArithmeticRequest)
    """Tokens for products, and made-up documents."""
    max_bad: int = 0
    """Entries that may be left out because they are no documents."""
    max_length: int | None = None
    """Tokens that a document keeps; None: all."""
    shuffle_seed: int | None = None
    """What the order of documents follows from; None: they keep that of the sources."""
    shard_tokens: int | None = None
    """Tokens of a shard; None: the dataset is in one piece."""
    share: tuple[int, int] | None = None
    """Which part of the sources is read, from 0, of how many; None: all of them."""
    split: str | None = None
    """of a dataset of the Hugging Face library; None: the one for training"""
    revision: str | None = None
    streaming: bool = True
    library: str | None = None
    """Which one encodes; None: the fastest that takes the tokenizer."""

    @property
    def keys(self) -> Sequence[str]:
        """What entries must have."""
        return self.json_keys if self.records is None else self.records.keys

    @property
    def name(self) -> Path:
        """The prefix, with the number of the share."""
        if self.share is None:
            return self.output
        return appended(self.output, f"-{self.share[0]:05}-of-{self.share[1]:05}")

    def prefixes(self) -> dict[str, Path]:
        """The dataset of each key; records make one dataset."""
        if self.records is not None:
            return {self.records.label: self.name}
        if len(self.json_keys) == 1:
            return {self.json_keys[0]: self.name}
        return {key: appended(self.name, f"_{key}") for key in self.json_keys}


def check_request(request: PreprocessRequest, tokenizer: Tokenizer) -> None:
    """Raises TrainyardError if it cannot be done, whatever is there already."""
    if request.largest_document < 1:
        raise TrainyardError(f"the limit for one document is {request.largest_document} bytes; give 1 MiB or more")
    if request.workers < 1:
        raise TrainyardError(f"workers is {request.workers}; at least one process must tokenize")
    of_hub = {"--split": request.split, "--revision": request.revision, "--no-streaming": not request.streaming or None}
    given = [option for option, value in of_hub.items() if value is not None]
    if given and not any(is_hub(str(each)) for each in request.inputs):
        raise TrainyardError(f"{' and '.join(given)} has no effect without a dataset of hf:; leave it out")
    for number, option in ((request.tokens, "--target-tokens"), (request.shard_tokens, "--shard-tokens")):
        if number is not None and number < 1:
            raise TrainyardError(f"{number:,} tokens are asked for; give one or more, or leave out {option}")
    if request.max_bad < 0:
        raise TrainyardError(f"--max-bad {request.max_bad}: give 0 or more")
    if not request.json_keys or len(set(request.json_keys)) != len(request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: name at least one key, and each once")
    if any(not key or "/" in key for key in request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: a key is part of a file name, without slashes")
    if any(storable(key) != key for key in request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: a key is text in UTF-8; set your terminal to it")
    kind = None if request.records is None else request.records.kind
    share = None if request.share is None else f"{request.share[0]}/{request.share[1]}"
    request.arithmetic.check(request.json_keys, kind, request.tokens, share, request.shuffle_seed is not None)
    if request.max_length is not None and request.arithmetic.inject is not None:
        raise TrainyardError(
            "--max-length would cut off tokens that --inject counts; leave one of the two out, or cut the texts"
        )
    for prefix in request.prefixes().values():
        check_name_of(prefix)
    if request.append_eod and request.records is None and tokenizer.end_of_document is None:
        raise TrainyardError(
            f"tokenizer {request.tokenizer} has no end-of-document token to append; set eos_token in its "
            "tokenizer_config.json, or leave out --append-eod"
        )


def check_share(share: tuple[int, int] | None) -> None:
    """Raises TrainyardError if there is no such part."""
    if share is not None and not 0 < share[1] <= MOST_SHARES:
        raise TrainyardError(f"--shard {share[0]}/{share[1]}: give from 1 to {MOST_SHARES:,} shards, such as 0/8")
    if share is not None and not 0 <= share[0] < share[1]:
        raise TrainyardError(
            f"--shard {share[0]}/{share[1]}: shards are counted from 0, so the last one of {share[1]} is "
            f"{share[1] - 1}/{share[1]}; in a job array: --array=0-{share[1] - 1}"
        )


def refuse_what_is_there(request: PreprocessRequest) -> None:
    """Raises TrainyardError if a dataset has the name, and is not to be replaced."""
    for prefix in request.prefixes().values():
        there = [prefix, *(shards_there(prefix) if request.shard_tokens is not None else [])]
        for path in (path for each in there for path in (bin_path(each), idx_path(each), manifest_path(each))):
            if path.exists():
                raise TrainyardError(f"{path} exists already; choose another --output, or add --overwrite")


def shards_there(prefix: Path) -> list[Path]:
    """Shards of a dataset, in whatever state, by number."""
    if not prefix.parent.is_dir():
        return []
    named = re.compile(rf"{re.escape(prefix.name)}-\d{{5}}(?=\.(bin|idx|manifest\.json)\Z)")
    found = {match[0] for path in prefix.parent.iterdir() if (match := named.match(path.name))}
    return [prefix.with_name(name) for name in sorted(found)]


def remove_dataset(prefix: Path) -> None:
    """Removes a dataset, its manifest first."""
    for path in (manifest_path(prefix), idx_path(prefix), bin_path(prefix)):
        path.unlink(missing_ok=True)
