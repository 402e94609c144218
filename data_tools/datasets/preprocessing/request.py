"""What `tools/preprocess` is asked for, and whether it can be done."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.datasets.indexed_dataset_format import appended, bin_path, idx_path
from data_tools.datasets.manifest import SettingsFacts, check_name_of, manifest_path
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.files.sources import FoundParts, parts_of
from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import RecordForm
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import storable


@dataclass(frozen=True)
class PreprocessRequest:
    """What to tokenize, with what, and where to."""

    inputs: Sequence[Path]
    """Files, or folders of files."""
    output: Path
    """Prefix of the dataset; with several keys, of PREFIX_key for each."""
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

    def prefixes(self) -> dict[str, Path]:
        """The dataset of each key; records make one dataset."""
        if self.records is not None:
            return {self.records.label: self.output}
        if len(self.json_keys) == 1:
            return {self.json_keys[0]: self.output}
        return {key: appended(self.output, f"_{key}") for key in self.json_keys}


def sources_of(request: PreprocessRequest) -> FoundParts:
    if request.records is not None:
        return request.records.parts_of(request.inputs, request.largest_document)
    return parts_of(request.inputs, request.json_keys, request.largest_document)


def check_request(request: PreprocessRequest, tokenizer: Tokenizer) -> None:
    if request.largest_document < 1:
        raise TrainyardError(f"the limit for one document is {request.largest_document} bytes; give 1 MiB or more")
    if request.workers < 1:
        raise TrainyardError(f"workers is {request.workers}; at least one process must tokenize")
    if request.tokens is not None and request.tokens < 1:
        raise TrainyardError(f"{request.tokens:,} tokens are asked for; give one or more, or leave out --tokens")
    if not request.json_keys or len(set(request.json_keys)) != len(request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: name at least one key, and each once")
    if any(not key or "/" in key for key in request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: a key is part of a file name, without slashes")
    if any(storable(key) != key for key in request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: a key is text in UTF-8; set your terminal to it")
    kind = None if request.records is None else request.records.kind
    request.arithmetic.check(request.json_keys, kind, request.tokens)
    for prefix in request.prefixes().values():
        check_name_of(prefix)
    if request.append_eod and request.records is None and tokenizer.end_of_document is None:
        raise TrainyardError(
            f"tokenizer {request.tokenizer} has no end-of-document token to append; set eos_token in its "
            "tokenizer_config.json, or leave out --append-eod"
        )
    if request.overwrite:
        return
    for prefix in request.prefixes().values():
        for path in (bin_path(prefix), idx_path(prefix), manifest_path(prefix)):
            if path.exists():
                raise TrainyardError(f"{path} exists already; choose another --output, or add --overwrite")


def settings_facts(
    request: PreprocessRequest, encoding: RecordEncoding | None, tokenizer: Tokenizer
) -> dict[str, SettingsFacts]:
    """How the documents of each dataset were read, by its keys."""
    asked = request.arithmetic
    shared: dict[str, Any] = {
        "parse_special": request.parse_special,
        "tokens_asked": request.tokens,
        "inject": asked.inject,
        "synthetic_documents": asked.synthetic_documents,
        "synthetic_seed": asked.drawn_from if asked.synthetic_documents else None,
    }
    if encoding is None:
        shared |= {"json_keys": list(request.json_keys), "append_eod": request.append_eod}
        return {key: SettingsFacts(json_key=key, **shared) for key in request.json_keys}
    form = encoding.form
    ended = request.append_eod or form.template != "tokenizer"
    facts = SettingsFacts(
        json_key=form.label,
        json_keys=list(form.keys),
        append_eod=ended,
        records=form.kind,
        template=form.template,
        template_sha256=encoding.template(tokenizer).sha256,
        separator=form.separator if form.template is None else None,
        **shared,
    )
    return {form.label: facts}


def command_of(request: PreprocessRequest, tokenizer: Tokenizer) -> str:
    """The command line with the names of files in place of this machine's paths."""
    arguments = ["tools/preprocess", *(path.name for path in request.inputs)]
    arguments += ["--output", request.output.name, "--tokenizer", tokenizer.name]
    if request.records is None:
        arguments += ["--json-keys", ",".join(request.json_keys)]
    else:
        arguments += [f"--{request.records.kind}", request.records.label]
        template = request.records.template
        arguments += (
            ["--pair-separator", request.records.separator] if template is None else ["--chat-template", template]
        )
    arguments += ["--append-eod"] if request.append_eod else []
    arguments += ["--parse-special"] if request.parse_special else []
    arguments += ["--tokens", str(request.tokens)] if request.tokens is not None else []
    return shlex.join([*arguments, *request.arithmetic.arguments()])
