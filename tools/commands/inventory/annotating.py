"""What people may say about runs and checkpoints: promotions, notes, tags, deprecation."""

import math
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.artefacts.annotations import Annotation, annotate, check_annotation
from megatron_patches.artefacts.evaluations.best import near_metrics
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.evaluated import known_metrics
from megatron_patches.artefacts.inventory.lineage import faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_artefact, resolve_run
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import shortened
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
    name, value, said = _chosen_by(inventory, artefact, metric) if metric else (None, None, "")
    annotate(folder, Annotation("gold", because, artefact.id, name, value))
    by = f" by {name} {value:.6g}" if value is not None else ""
    return f"{artefact.name} ({artefact.id[:12]}) is gold{by}{said}"


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


def _chosen_by(inventory: Inventory, artefact: Artefact, text: str) -> tuple[str, float, str]:
    """The metric that a checkpoint was chosen by, its value, and what is to be told of them.

    Raises:
        Missing: no value was given, and no evaluation of the checkpoint has one; the nearest names are offered.
        TrainyardError: it is not formed as it must be.
    """
    name, given = _metric(text)
    known = known_metrics(inventory.catalogue, artefact)
    if given is None:
        if name not in known:
            near = near_metrics(name, known) or "it has none: tools/evals run evaluates it"
            raise Missing(
                f"{artefact.name} has no metric {shortened(name, 80)} on record; {near}. Or give the value: "
                f"--metric {shortened(name, 80)}=VALUE"
            )
        return name, known[name], ", as it was evaluated" if name not in artefact.metrics else ""
    if name in known and not _is_rounded(text.rpartition("=")[2], known[name]):
        return (
            name,
            given,
            f"; note: on record is {known[name]:.6g}, which --metric {shortened(name, 80)} takes",
        )
    return name, given, ""


def _is_rounded(given: str, value: float) -> bool:
    """Whether a number that somebody typed is a value with fewer digits; half a unit of the last one may be missing."""
    _, _, digits = given.strip().lower().partition("e")[0].partition(".")
    exponent = int(given.lower().partition("e")[2] or 0) if "e" in given.lower() else 0
    return abs(float(given) - value) <= 0.5000001 * 10.0 ** (exponent - len(digits))


def _metric(text: str) -> tuple[str, float | None]:
    """A name, and the number where one was given."""
    name, sign, number = text.rpartition("=")
    if not sign and text.strip():
        return text.strip(), None
    try:
        value = float(number)
        if not name or not math.isfinite(value):
            raise ValueError
        return name, value
    except ValueError:
        raise TrainyardError(
            f"--metric {text}: give a name and a number, mmlu=0.2687, or the name of a metric of its evaluation, "
            "hellaswag.acc_norm"
        ) from None
