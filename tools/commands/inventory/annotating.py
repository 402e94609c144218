"""What people may say about runs and checkpoints: promotions, notes, tags, deprecation."""

import math
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.artefacts.annotations import Annotation, annotate, check_annotation
from megatron_patches.artefacts.inventory.lineage import faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_artefact, resolve_run
from megatron_patches.errors import TrainyardError
from tools.run_views.views import Inventory


def promote(inventory: Inventory, what: str, because: str, metric: str, undo: bool) -> str:
    """Makes a checkpoint its run's gold, or takes that back; returns what was done.

    Raises:
        TrainyardError: it is no checkpoint of a run here, is invalid, or no reason was given.
    """
    artefact = resolve_artefact(what, inventory.catalogue)
    if artefact.kind not in ("checkpoint", "export") or artefact.run is None:
        raise TrainyardError(f"{artefact.name} is a {artefact.kind}; a checkpoint or export of a run is promoted")
    folder = inventory.runs / artefact.run
    if undo:
        annotate(folder, Annotation("not-gold", because, artefact.id))
        return f"{artefact.name} is no longer gold"
    if not because.strip():
        raise TrainyardError("say why: --because TEXT; whoever wonders later reads it")
    if artefact.id in faulty_ids(inventory.catalogue):
        raise TrainyardError(
            f"{artefact.name} is invalid, or came from something invalid: `tools/inventory show {what}` says which. "
            "Promote another one, or `tools/inventory revalidate` the cause"
        )
    name, value = _metric(metric) if metric else (None, None)
    annotate(folder, Annotation("gold", because, artefact.id, name, value))
    return f"{artefact.name} ({artefact.id[:12]}) is gold" + (f" by {name} {value:g}" if value is not None else "")


def annotate_run(
    inventory: Inventory, run: str, text: str, tags: Sequence[str], untags: Sequence[str], deprecate: str, restore: bool
) -> list[str]:
    """Writes down each annotation; returns a line for each.

    Raises:
        TrainyardError: the run is unknown, or was only published elsewhere, nothing was said, or one of the
            annotations is refused; nothing is written then.
    """
    name = resolve_run(run, inventory.names())
    folder = _run_folder(inventory, name)
    annotations = [Annotation("tag", tag) for tag in tags] + [Annotation("untag", tag) for tag in untags]
    annotations += [Annotation("note", text)] if text.strip() else []
    annotations += [Annotation("deprecated", deprecate)] if deprecate.strip() else []
    annotations += [Annotation("restored", "")] if restore else []
    if not annotations:
        raise TrainyardError("say something: a text, --tag TAG, --untag TAG, --deprecate REASON or --restore")
    for each in annotations:
        check_annotation(each)  # all of them, before the first is written
    for each in annotations:
        annotate(folder, each)
    return [f"{name}: {each.word}{f' {each.text}' if each.text else ''}" for each in annotations]


def _run_folder(inventory: Inventory, name: str) -> Path:
    if name not in inventory.files and name not in inventory.catalogue.run_names():
        raise TrainyardError(f"{name} is an entry of published/*.yaml: edit it there, then `tools/inventory render`")
    return inventory.runs / name


def _metric(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
        if not name or not math.isfinite(value):
            raise ValueError
        return name, value
    except ValueError:
        raise TrainyardError(f"--metric {text}: give a name and a number, mmlu=0.2687") from None
