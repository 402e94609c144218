"""The evaluations of a checkpoint, as `tools/inventory show` tells them."""

from typing import Any

from megatron_patches.artefacts.evaluations.result import TaskResult
from megatron_patches.artefacts.evaluations.shelf import read_evaluation
from megatron_patches.artefacts.folders import name_before, parse_checkpoint_name
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.evaluated import evaluations_of
from megatron_patches.sizes import counted
from tools.terminal import filled

_INDENT = "  "


def evaluation_lines(catalogue: Catalogue, artefact: Artefact) -> list[str]:
    """The results of a checkpoint, or of an evaluation: of each task its metrics, without those of its parts, and what
    one must know to compare them.
    """
    of_it = [artefact] if artefact.kind == "evaluation" else evaluations_of(catalogue, artefact)
    lines = []
    for each in of_it:
        problems: list[str] = []
        results = read_evaluation(each.folder, problems).results if _is_of_a_step(each) else {}
        if results:
            marked = f", INVALID: {each.reason}" if each.state == "invalid" else ""
            lines.append(f"evaluation {each.name} ({each.id[:12]}){marked}")
            lines += [line for result in results.values() for line in _told(result)]
        lines += [f"{_INDENT}passed over: {problem}" for problem in problems]
    return lines


def describe_evaluations(catalogue: Catalogue, artefact: Artefact) -> list[dict[str, Any]]:
    """The same for other programs, with what each result states."""
    return [
        {"name": each.name, "id": each.id, "state": each.state, "results": _results(each)}
        for each in evaluations_of(catalogue, artefact)
    ]


def _results(evaluation: Artefact) -> dict[str, Any]:
    found = read_evaluation(evaluation.folder, []).results if _is_of_a_step(evaluation) else {}
    return {label: result.model_dump(exclude_none=True) for label, result in found.items()}


def _is_of_a_step(evaluation: Artefact) -> bool:
    """Not one that people adopted or made themselves, under another name."""
    return parse_checkpoint_name(name_before(evaluation.folder.name)) is not None


def _told(result: TaskResult) -> list[str]:
    numbers = []
    for name, metric in result.metrics.items():
        error = f" ± {metric.standard_error:.2g}" if metric.standard_error is not None else ""
        numbers.append(f"{name} {metric.value:.4g}{error}")
    limit = f" (limit {result.limit:,})" if result.limit is not None else ""
    parts = f" in {counted(len(result.parts), 'part')}" if result.parts else ""
    amount = (
        f"{result.examples:,} tokens"
        if "loss" in result.metrics
        else f"{result.shots}-shot, {result.examples:,} examples"
    )
    about = [
        f"{amount}{limit}{parts}",
        f"through {result.through}, version {result.version}, {result.date[:10]}",
    ]
    return [
        *filled(f"{result.label}: {', '.join(numbers)}", _INDENT, 3 * _INDENT),
        *filled(", ".join(about), 2 * _INDENT, 4 * _INDENT),
    ]
