"""A checkpoint as a folder of transformers that `from_pretrained` loads, with the card that proves it.

FOLDER/config.json, generation_config.json           the model, and where texts that it continues end
FOLDER/model.safetensors, or model-00001-of-0000N.safetensors with an index
FOLDER/tokenizer.json (or spiece.model), tokenizer_config.json, chat_template.jinja
FOLDER/card.json, README.md                           what was compared, and the model card for people
FOLDER/manifest.json                                  an artefact of kind export, whose parent is the checkpoint
"""

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from data_tools.text.tokenizer import Tokenizer
from data_tools.wrapped_texts import is_wrapped
from megatron_patches.artefacts.descent import ORIGIN, origin_of
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    Manifest,
    build_manifest,
    read_manifest,
    record_file,
    write_manifest,
)
from megatron_patches.artefacts.new_folder import refuse_place
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.atomic_files import fsync_folder, temporary_path, write_atomically
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer, own_tokenizer_files
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable, storable
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved
from megatron_patches.sizes import readable
from megatron_patches.transformers_exchange.card.card import Card, write_card
from megatron_patches.transformers_exchange.card.folder import CONFIG_FILE
from megatron_patches.transformers_exchange.card.proof import prove, refuse_unprovable
from megatron_patches.transformers_exchange.card.source import Source
from megatron_patches.transformers_exchange.card.text import CardText, card_text
from megatron_patches.transformers_exchange.choice import choose_format
from megatron_patches.transformers_exchange.loaded_settings import compare_settings
from megatron_patches.transformers_exchange.model_card import README, model_card
from megatron_patches.transformers_exchange.model_description import TokenIds, config_json, generation_json, token_ids
from megatron_patches.transformers_exchange.tokenizer_files import (
    ExportedTokenizer,
    compare_tokenizers,
    exported_tokenizer,
    write_tokenizer_files,
)
from megatron_patches.transformers_exchange.weight_choice import Weights, source_of
from megatron_patches.transformers_exchange.weight_files import plan_shards, write_shards

GENERATION_FILE = "generation_config.json"
FORMAT = "transformers"
"""fact of the manifest: what can load it"""
_FULL = (errno.ENOSPC, errno.EDQUOT)
OnPhase = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported, and how."""

    checkpoint: Path
    """folder of a checkpoint that was read and found whole"""
    target: Path
    """folder to make"""
    format: str | None = None
    """`model_type`; None takes the first that can express the model"""
    weights: Weights = "stored"
    shard_bytes: int = 5_000_000_000
    """largest file of weights; a larger parameter has one to itself"""
    text: Path | None = None
    """file for the card; None takes the run's validation samples, where they are here"""
    by_block: bool = False
    """the card loads one layer at a time"""
    command: str = ""
    """as a person would write it, for the card"""


@dataclass(frozen=True)
class Exported:
    """What was made."""

    folder: Path
    manifest: Manifest
    card: Card
    notes: tuple[str, ...]
    """what whoever uses it should know, such as ids that stand for nothing"""


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before the first byte is written."""

    request: ExportRequest
    manifest: Manifest
    config: RunConfig
    format: TransformersFormat
    source: Source
    tokenizer: Tokenizer
    exported: ExportedTokenizer
    ids: TokenIds
    text: CardText


def export_transformers(request: ExportRequest, on: OnPhase = lambda phase: None) -> Exported:
    """Writes the folder under a temporary name, proves it there, and renames it.

    One parameter is in memory at a time while weights are written; the card holds one model in fp32, or one layer of it
    with `by_block`. This process must not have joined process groups.

    Args:
        on: hears of each phase and shard before it begins.

    Raises:
        Refused: the folder exists, or none can be made there; no format expresses the model; there are no masters; or
            the tokenizer of transformers gives other ids. NotEqual: a setting is another, or the card fails.
        Missing: the tokenizer or the text is not to be found.
        Damaged: the checkpoint is not what a checkpoint has.
        OSError: as writing does. Nothing is left in any case.
    """
    refuse_place(request.target)
    if storable(request.target.absolute()) != str(request.target.absolute()):
        raise Refused(
            f"{printable(request.target)} is no UTF-8, and transformers could not read it; name another folder"
        )
    plan = _plan(request)
    request.target.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(request.target)
    partial.mkdir()
    try:
        exported = _write(plan, partial, on)
        partial.rename(request.target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        # a write that fails, because of a limit on sizes of files too, names none
        if isinstance(error, OSError) and (error.filename is None or error.errno in _FULL):
            place = f"{printable(request.target.parent)}; free space there, or name another place with --output"
            raise OSError(error.errno, f"{error.strerror}: {place}; nothing was left") from error
        raise
    fsync_folder(request.target.parent)
    return exported


def _plan(request: ExportRequest) -> _Plan:
    config = load_resolved(request.checkpoint / CONFIG)
    manifest = read_manifest(request.checkpoint / MANIFEST)
    format = choose_format(config, request.format)
    source = source_of(request.checkpoint, manifest, config, request.weights)
    tokenizer = own_tokenizer(request.checkpoint, manifest, config)
    files = own_tokenizer_files(request.checkpoint, manifest)
    exported = exported_tokenizer(
        files, tokenizer, config.lengths.of("tokens"), config.model.vocabulary, format.task, is_wrapped(config.data)
    )
    ids = token_ids(exported.settings, tokenizer, format.task)
    text = card_text(config, tokenizer, request.text, ids.mask)
    refuse_unprovable(config, text)
    return _Plan(request, manifest, config, format, source, tokenizer, exported, ids, text)


def _write(plan: _Plan, partial: Path, on: OnPhase) -> Exported:
    """All files of the folder, the manifest last."""
    shards = plan_shards(plan.format, plan.config, plan.source, plan.request.shard_bytes)
    _refuse_small_disk(plan.request.target.parent, sum(shard.bytes for shard in shards))
    write_json(partial / CONFIG_FILE, config_json(plan.format, plan.config, plan.ids, plan.source))
    if plan.format.task == "text-generation":
        write_json(partial / GENERATION_FILE, generation_json(plan.ids))
    dtype = str(plan.source.dtype).removeprefix("torch.")
    compare_settings(partial, dtype, plan.config.lengths.of("tokens"), plan.ids, plan.format.task)
    write_tokenizer_files(plan.exported, partial)
    on("tokenizer, hard texts")
    compare_tokenizers(plan.tokenizer, partial, plan.text.ids, plan.exported.fixed, plan.exported.around)
    records = write_shards(partial, shards, on)
    on("card: by blocks" if plan.request.by_block else "card")
    by_block, command = plan.request.by_block, plan.request.command
    card = prove(plan.source, partial, plan.format, plan.config, plan.text, by_block, command)
    write_card(partial, card)
    notes = vocabulary_notes(plan.config.model.vocabulary, plan.tokenizer.vocab_size)
    page = model_card(plan.config, plan.manifest, card, plan.request.weights, notes, plan.format.task)
    if plan.text.note:  # it may name paths, which the page leaves out
        why = plan.text.note.splitlines()[0]
        notes.append(f"compared on this project's documents, not on validation samples: {why}")
    write_atomically(partial / README, page.encode())
    written = {record.path for record in records}
    others = [path for path in sorted(partial.iterdir()) if path.name not in written]
    files = sorted([*records, *(record_file(path, partial) for path in others)], key=lambda record: record.path)
    manifest = build_manifest("export", files, _facts(plan), parents=(plan.manifest.id,))
    write_manifest(partial / MANIFEST, manifest)
    return Exported(plan.request.target, manifest, card, tuple(notes))


def _facts(plan: _Plan) -> dict[str, JsonValue]:
    saved = plan.manifest.facts
    return {
        "format": FORMAT,
        "model_type": plan.format.model_type,
        "weights": plan.request.weights,
        ORIGIN: origin_of(plan.manifest),
        **{key: saved[key] for key in ("run", "step", "samples", "tokens") if key in saved},
    }


def vocabulary_notes(model: int, tokenizer: int) -> list[str]:
    """What to know where a model's vocabulary and its tokenizer's are not equally large.

    Args:
        model: ids that the model has.
        tokenizer: largest id that the tokenizer gives, plus one.
    """
    if tokenizer == model - 1:
        return [f"id {tokenizer:,} is the model's and stands for no text: the tokenizer ends before it"]
    if tokenizer < model:
        return [
            f"{model - tokenizer:,} ids from {tokenizer:,} to {model - 1:,} are the model's and stand for no text: the "
            "tokenizer ends before them"
        ]
    if tokenizer > model:
        return [
            f"the tokenizer gives ids up to {tokenizer - 1:,}, the model has those below {model:,}: text with the "
            "others cannot be read"
        ]
    return []


def write_json(path: Path, content: Mapping[str, JsonValue]) -> None:
    """Writes an object as transformers does: indented, its keys sorted."""
    write_atomically(path, (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def _refuse_small_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Refused(
            f"{printable(folder)}: the weights take {readable(needed)}, {readable(free)} are free; free space, or name "
            "another folder with --output"
        )
