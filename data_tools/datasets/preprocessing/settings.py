"""What a manifest says of a request, and what of it decides the bytes that are written."""

import shlex
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_tools.datasets.manifest import SettingsFacts
from data_tools.datasets.preprocessing.inputs import Inputs
from data_tools.datasets.preprocessing.request import PreprocessRequest
from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.hugging_face_name import HubSpec, is_hub
from data_tools.records.encoding import RecordEncoding
from data_tools.text.tokenizer import Tokenizer


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
        "max_length": request.max_length,
        "shuffle_seed": request.shuffle_seed,
        "shard_tokens": request.shard_tokens,
        "share": _share(request),
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


def _share(request: PreprocessRequest) -> str | None:
    return None if request.share is None else f"{request.share[0]}/{request.share[1]}"


def deciding(
    request: PreprocessRequest, inputs: Inputs, encoding: RecordEncoding | None, tokenizer: Tokenizer
) -> dict[str, JsonValue]:
    """What must be equal for unfinished work to be continued, by the names that people know.

    --workers and --library are not among it, since they change no byte, nor is --max-bad: with a larger one the work
    goes on after the entry that was one too many.
    """
    settings = next(iter(settings_facts(request, encoding, tokenizer).values()))
    return {
        "the inputs (names, sizes, times of change)": inputs.known_by,
        "the inputs' parts": [[part.name, part.size, list(part.stretch or ())] for part in inputs.parts],
        "--tokenizer": tokenizer.id,
        "keys, or an option of how documents are written": settings.model_dump(mode="json"),
        "--max-document-mib": request.largest_document,
    }


def command_of(request: PreprocessRequest, tokenizer: Tokenizer) -> str:
    """The command line with the names of files in place of this machine's paths."""
    arguments = ["tools/preprocess", *(_name(each) for each in request.inputs)]
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
    numbers = {
        "--split": request.split,
        "--revision": request.revision,
        "--tokens": request.tokens,
        "--max-bad": request.max_bad or None,
        "--max-document-mib": _other_than(LARGEST_DOCUMENT, request.largest_document),
        "--max-length": request.max_length,
        "--shard-tokens": request.shard_tokens,
        "--shard": _share(request),
    }
    arguments += [word for option, value in numbers.items() if value is not None for word in (option, str(value))]
    if request.shuffle_seed is not None:
        seed = [] if request.arithmetic.synthetic_documents else ["--seed", str(request.shuffle_seed)]
        arguments += ["--shuffle", *seed]
    return shlex.join([*arguments, *request.arithmetic.arguments()])


def _other_than(default: int, size: int) -> int | None:
    """Bytes in MiB where they are not the default."""
    return None if size == default else size >> 20


def _name(given: Path | str) -> str:
    text = str(given)
    return f"hf:{HubSpec.parse(text).name}" if is_hub(text) else Path(given).name
