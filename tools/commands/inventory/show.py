"""One artefact, or one run, in full."""

from typing import Any

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.lineage import Relative, ancestors, descendants, faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import readable
from tools.commands.inventory.course_tree import draw
from tools.commands.inventory.evaluations import describe_evaluations, evaluation_lines
from tools.commands.inventory.whereabouts import copies_of
from tools.run_views.course import course_of
from tools.run_views.views import Inventory

_SHOWN = 12
_ENDS = 3
"""checkpoints of one run that are told one by one"""
_DEEPEST = 4
"""indentation stops growing there"""


def describe(inventory: Inventory, what: str) -> dict[str, Any]:
    """Everything that is known, for other programs.

    Raises:
        TrainyardError: nothing is known of it, or several may be meant.
    """
    if what in inventory.names():
        return _describe_run(inventory, what)
    artefact = resolve_artefact(what, inventory.catalogue)
    return artefact.as_json() | {
        "faulty": artefact.id in faulty_ids(inventory.catalogue),
        "facts": read_manifest(artefact.manifest).facts,
        "evaluations": describe_evaluations(inventory.catalogue, artefact),
        "copies": [copy.as_json() for copy in copies_of(inventory, artefact.id)[0]],
        "ancestors": [_relative(each) for each in ancestors(inventory.catalogue, artefact)],
        "descendants": [_relative(each) for each in descendants(inventory.catalogue, artefact)],
    }


def show(inventory: Inventory, what: str) -> str:
    """The same for people."""
    if what in inventory.names():
        lines = [*_show_run(_describe_run(inventory, what)), *_course(inventory, what, None)]
        return "\n".join(printable(line) for line in lines)
    artefact = resolve_artefact(what, inventory.catalogue)
    manifest = read_manifest(artefact.manifest)
    evaluated = evaluation_lines(inventory.catalogue, artefact)
    told = artefact.kind != "evaluation" or not evaluated
    lines = [f"{artefact.name}: {artefact.kind} {artefact.id}"]
    lines += _aligned(
        {
            "status": _status(artefact, faulty_ids(inventory.catalogue)),
            "made": f"{manifest.created} by {manifest.by.command}",
            "revision": manifest.by.describe_revision(),
            "files": f"{artefact.files}, {readable(artefact.size)}",
            "layout": artefact.layout or "",
            "tokens": f"{artefact.tokens:,}" if artefact.tokens is not None else "",
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in artefact.metrics.items()) if told else "",
        }
    )
    copies, problems = copies_of(inventory, artefact.id)
    for copy in copies:
        lines.append(f"  at {copy.location} ({'whole' if copy.whole else 'part'}; {copy.standing})")
    lines += [f"  passed over: {problem}" for problem in problems]
    lines += evaluated
    lines.append("came from")
    lines += _relatives(ancestors(inventory.catalogue, artefact))
    lines.append("led to")
    lines += _relatives(descendants(inventory.catalogue, artefact))
    if artefact.kind == "checkpoint" and artefact.run is not None:
        lines += _course(inventory, artefact.run, artefact.id)
    return "\n".join(printable(line) for line in lines)


def _describe_run(inventory: Inventory, name: str) -> dict[str, Any]:
    record = inventory.record(name).as_json()
    rows = inventory.catalogue.artefacts("run = ? AND kind != 'run'", [name], "ORDER BY kind, step")
    faulty = faulty_ids(inventory.catalogue)
    record["artefacts"] = [each.as_json() | {"faulty": each.id in faulty} for each in rows]
    return record


def _course(inventory: Inventory, run: str, marked: str | None) -> list[str]:
    try:
        course = course_of(inventory.catalogue, RunFolder(inventory.runs / run))
    except TrainyardError as error:
        return [f"  passed over: {error}"]
    drawn = draw(course, faulty_ids(inventory.catalogue), marked)
    return ["lineage of the run, launch by launch; * lies on the present branch", *drawn] if drawn else []


def _show_run(run: dict[str, Any]) -> list[str]:
    state = run["state"]
    detail = f" ({state['detail']})" if state["detail"] else ""
    at = f" at step {run['best_step']:,}" if run["best_step"] is not None else ""
    on = f" on {run['best_group']}" if run["best_group"] else ""
    best = ", ".join(f"{name} {value:.4g}{on}{at}" for name, value in run["best"].items())
    lines = [run["name"]]
    lines += _aligned(
        {
            "state": f"{state['word']}{detail}{', as its owners declared it' if run['declared'] else ''}",
            "why": run["why"],
            "family": run["family"] or "",
            "baseline": run["baseline"] or "",
            "step": f"{state['step']:,}" if state["step"] is not None else "",
            "tokens": f"{state['tokens']:,}" if state["tokens"] is not None else "",
            "best": best,
            "gold": "; ".join(run["gold"]),
            "trackers": "; ".join(run["trackers"]),
            "tags": ", ".join(run["tags"]),
        }
    )
    lines += [f"  at {location}" for location in run["locations"]]
    lines += [f"  note: {note}" for note in run["notes"]]
    lines += [f"  passed over: {problem}" for problem in run["problems"]]
    counted: dict[str, int] = {}
    for artefact in run["artefacts"]:
        kind = "weights" if artefact.get("content") == "weights" else artefact["kind"]
        counted[kind] = counted.get(kind, 0) + 1
    lines += [f"  {number} x {kind}" for kind, number in sorted(counted.items())]
    return lines


def _aligned(facts: dict[str, str]) -> list[str]:
    return [f"  {name:<9} {value}" for name, value in facts.items() if value]


def _status(artefact: Artefact, faulty: set[str]) -> str:
    if artefact.state != "valid":
        return f"INVALID: {artefact.reason}"
    return "has an invalid ancestor" if artefact.id in faulty else "valid"


def _relatives(found: list[Relative]) -> list[str]:
    """A line each; of a run's checkpoints the nearest and the farthest."""
    groups: dict[str, list[Relative]] = {}
    for each in found:
        known = each.artefact
        same = f"checkpoints of {known.run}" if known and known.kind == "checkpoint" and known.run else each.id
        groups.setdefault(same, []).append(each)
    lines = []
    for same, group in list(groups.items())[:_SHOWN]:
        ends = group if len(group) <= _ENDS else [group[0], group[-1]]
        told = [f"  {'  ' * min(each.distance - 1, _DEEPEST)}{each.id[:12]} {_called(each)}" for each in ends]
        if len(group) > _ENDS:
            invalid = sum(each.artefact is not None and each.artefact.state != "valid" for each in group[1:-1])
            marked = f", {invalid:,} of them INVALID" if invalid else ""
            told.insert(1, f"  {'  ' * min(ends[0].distance, _DEEPEST)}{len(group) - 2:,} more {same}{marked}")
        lines += told
    if len(groups) > _SHOWN:
        lines.append(f"  and {len(groups) - _SHOWN:,} more")
    return lines or ["  nothing that is known"]


def _called(each: Relative) -> str:
    known = each.artefact
    return f"{known.kind} {known.name}{'' if known.state == 'valid' else ' (INVALID)'}" if known else "not here"


def _relative(each: Relative) -> dict[str, Any]:
    known = each.artefact
    facts = {"name": known.name, "kind": known.kind, "state": known.state} if known else {}
    return {"id": each.id, "distance": each.distance, **facts}
