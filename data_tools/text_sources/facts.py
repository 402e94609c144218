"""What a launch finds out of a text source, for its ranks, which look at no file of it: which files there are, what is
held out, and how many bytes a token takes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, ValidationError

from data_tools.datasets.manifest import TokenizerFacts, describe_tokenizer, manifest_path
from data_tools.plans.samples_config import SamplesSection
from data_tools.plans.wrapping import Wrapping
from data_tools.reading.block import Part
from data_tools.samples.lengths import SampleLengths
from data_tools.streams.position import VERSION
from data_tools.streams.reserved import reserve
from data_tools.streams.settings import Encode, StreamSettings
from data_tools.streams.text_config import TextConfig
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from data_tools.text_sources.encoding import encoding_here, recipe_of
from data_tools.text_sources.held_out import write_first_documents
from data_tools.text_sources.parts import TextParts, parts_of_text, place_of
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

LARGEST_FACTS = 1 << 28
LARGEST_SIZE = 1 << 62
"""bytes of text, in facts that can be true"""
OnPreparation = Callable[[str, int, int], None]
"""is told what is made, how much is done, and of how much"""


@dataclass(frozen=True)
class TextPreparation:
    """What a run wants of its text sources before it trains."""

    folder: Path
    """where facts and held-out documents are kept"""
    validation_samples: int
    """of one validation; 0 where the run has none"""


class TextFacts(BaseModel):
    """What a launch found of one text source."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tokenizer: TokenizerFacts
    """the run's"""
    identity: dict[str, JsonValue]
    """which documents there are to train on, by names and sizes of files, or as the hub says it"""
    files: NonNegativeInt
    size: int = Field(ge=0, le=LARGEST_SIZE)
    """bytes of them; 0 where that is not known"""
    reserved: list[NonNegativeInt] = []
    """of each part, how many of its first documents are never trained on"""
    held_out: str | None = Field(None, pattern=r"^[^./\x00][^/\x00]*$")
    """name of the dataset of what is validated on"""
    held_out_parts: NonNegativeInt = 0
    """from how many of the first parts these documents come"""
    held_out_told: str = ""
    """which documents these are, for people"""
    bytes_per_token: float | None = Field(None, ge=1e-9, le=LARGEST_SIZE, allow_inf_nan=False)
    """of the first documents, in files as they lie"""


@dataclass(frozen=True)
class TextRequest:
    """A text source, and what is to be known of it."""

    name: str
    text: TextConfig
    checkout: Path
    tokenizer: Path
    tokenizer_id: str
    allow_invalid: bool
    samples: SamplesSection
    lengths: SampleLengths
    preparation: TextPreparation
    held_out: bool
    """whether documents are wanted for validation"""
    validates_alone: bool = False
    """whether the source is one of a validation group, of which nothing is trained on"""
    wrapping: Wrapping | None = None
    """the tokens around each text, where samples are wrapped"""

    @property
    def path(self) -> Path:
        """Where the facts are kept; other settings have another place."""
        settings = {
            "text": self.text.model_dump(),
            "tokenizer": self.tokenizer_id,
            "samples": [self.samples.name, self.samples.decides(self.lengths.read)],
            "lengths": [self.lengths.read, self.lengths.stride],
            "held_out": [self.held_out, self.validates_alone, self.preparation.validation_samples],
        }
        return self.preparation.folder / f"{self.name}-{_key(settings)}.json"

    def settings(self, seed: int = 0, reserved: Sequence[int] = (), max_epochs: int | None = None) -> StreamSettings:
        """How its documents become samples."""
        text = self.text
        return StreamSettings(
            samples=self.samples,
            lengths=self.lengths,
            seed=seed,
            source=self.name,
            identity=json.dumps([self.tokenizer_id, text.key, text.append_eod]),
            shuffle_documents=text.shuffle_documents,
            reserved=tuple(reserved),
            tokenizer=self.tokenizer,
            max_epochs=max_epochs,
            max_bad=text.max_bad,
            wrapping=self.wrapping,
        )


def text_facts(request: TextRequest, prepare: OnPreparation | None) -> TextFacts:
    """The facts of a text source: found out, or where nothing is to be made, as the launch found them.

    Raises:
        TrainyardError: there is no text, or not enough to hold out, or it cannot be read.
    """
    if prepare is None:
        return _read_facts(request)
    parts = parts_of_text(request.text, request.checkout)
    known = _known(request)
    if known is not None and known.identity == identity_of(parts):
        return known
    facts = _found_out(request, parts, prepare)
    _write(request.path, facts)
    return facts


def _known(request: TextRequest) -> TextFacts | None:
    """What an earlier launch found out, if all of it is still there."""
    try:
        facts = _read_facts(request)
    except (Missing, Damaged):
        return None
    held_out = facts.held_out and request.preparation.folder / facts.held_out
    return facts if not held_out or is_file(manifest_path(held_out)) else None


def _write(path: Path, facts: TextFacts) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, facts.model_dump_json().encode())
    except OSError as error:
        raise TrainyardError(
            f"{printable(path)} cannot be written ({error.strerror}); give this user the right to, or export "
            "TRAINYARD_RUNS=FOLDER, which names another place for runs"
        ) from None


def _read_facts(request: TextRequest) -> TextFacts:
    if not is_file(request.path):
        raise Missing(
            f"what the launch found out of the text of source {request.name} is not there "
            f"({printable(request.path)}); start the launch again"
        )
    try:
        return TextFacts.model_validate_json(read_bounded(request.path, LARGEST_FACTS))
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise Damaged(f"{printable(request.path)} is damaged ({reason}); start the launch again") from None


def _found_out(request: TextRequest, parts: TextParts, prepare: OnPreparation) -> TextFacts:
    tokenizer = load_tokenizer(request.tokenizer, request.allow_invalid)
    if request.text.append_eod and tokenizer.end_of_document is None:
        raise Refused(
            f"tokenizer {tokenizer.name} has no end-of-document token for the text of source {request.name}; set "
            "text.append_eod to false, or take a tokenizer with one (a Hugging Face folder names it as eos_token in "
            "tokenizer_config.json)"
        )
    encode = encoding_here(recipe_of(request.text, request.tokenizer), tokenizer)
    size = sum(part.size for part in parts.training)
    known = all(part.size for part in parts.training)
    facts = TextFacts(
        tokenizer=describe_tokenizer(tokenizer),
        identity=identity_of(parts),
        files=len(parts.training),
        size=size if known else 0,
        bytes_per_token=_bytes_per_token(parts.training, encode, request.text.max_bad),
    )
    if not request.held_out:
        return facts
    prepare(f"held-out documents of {request.name}", 0, request.preparation.validation_samples)
    return _with_held_out(facts, request, parts, encode, tokenizer)


def _with_held_out(
    facts: TextFacts, request: TextRequest, parts: TextParts, encode: Encode, tokenizer: Tokenizer
) -> TextFacts:
    by_name, chosen = _to_hold_out(request, parts)
    wanted = request.preparation.validation_samples
    held = reserve(chosen, encode, request.settings(), wanted, wanted)
    which = f" of {parts.validation_told}" if by_name else ""
    told = f"the first {counted(held.documents, 'document')}{which}"
    content = [identity_of(TextParts(chosen, [], parts.identity)), list(held.per_part), request.settings().identity]
    name = f"{request.name}-{_key(content)}"
    prefix = request.preparation.folder / name
    if not is_file(manifest_path(prefix)):
        recipe = recipe_of(request.text, request.tokenizer)
        write_first_documents(prefix, chosen, held.per_part, encode, recipe, tokenizer)
    reserved = [] if by_name or request.validates_alone else list(held.per_part)
    found = {"reserved": reserved, "held_out": name, "held_out_parts": len(held.per_part), "held_out_told": told}
    return facts.model_copy(update=found)


def _to_hold_out(request: TextRequest, parts: TextParts) -> tuple[bool, list[Part]]:
    """Whether names say what is held out, and the parts that it is the first documents of."""
    # of a group what it names is taken
    by_name = bool(parts.validation) and not (request.validates_alone and request.text.split is not None)
    return by_name, parts.validation if by_name else parts.training


def places_trained_on(request: TextRequest) -> set[str]:
    """Where the parts lie that a source trains on: files, or shards of the hub."""
    return {place_of(each) for each in parts_of_text(request.text, request.checkout).training}


def places_validated_on(request: TextRequest, facts: TextFacts) -> list[str]:
    """Where those parts lie of which the held-out documents are."""
    _, chosen = _to_hold_out(request, parts_of_text(request.text, request.checkout))
    return [place_of(each) for each in chosen[: facts.held_out_parts]]


def identity_of(parts: TextParts) -> dict[str, Any]:
    """Which documents there are to train on; two that differ tell in what."""
    if parts.identity is not None:
        return parts.identity
    listed = [[part.name, part.size] for part in parts.training]
    return {"files": len(listed), "bytes": sum(part.size for part in parts.training), "names": _key(listed)}


def _bytes_per_token(parts: Sequence[Part], encode: Encode, max_bad: int) -> float | None:
    """Bytes per token of the first block that has tokens.

    Raises:
        TrainyardError: it holds too many entries that are no documents; the first of them is named.
    """
    bad = 0
    for block, encoded in encode(parts[0].blocks()):
        bad += len(encoded.bad)
        if bad > max_bad:
            raise TrainyardError(encoded.bad[0].reason)
        tokens = sum(len(texts.tokens) for texts in encoded.texts)
        if tokens:
            return block.source_bytes / tokens
    return None


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, value], sort_keys=True).encode()).hexdigest()[:12]
