"""The picture of a run's lineage: a line for each launch, and beneath it what was left behind and what came of it."""

import textwrap
from collections.abc import Sequence

from megatron_patches.artefacts.branch import Beginning, why_left
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.sizes import counted
from tools.run_views.course import CameOf, Course, SavedHere

_WIDTH = 80
_ENDS = 4
"""of many checkpoints so many are named at the beginning, and at the end"""
_EVALUATION = "evaluation "
_NOTED = 12
"""launches or children of one kind that are told one by one"""


def draw(course: Course, faulty: set[str], marked: str | None = None) -> list[str]:
    """Lines of at most 80 characters; words are not cut, so a long name may be longer.

    Args:
        faulty: ids of what is invalid or came from something invalid.
        marked: id of the checkpoint whose lineage was asked for.
    """
    present = {each.artefact.launch for each in course.saved if each.left_by is None}
    lines = [_wrapped("  came from ", _source(course, each)) for each in course.origins]
    silent: list[int] = []
    beginnings = {each.launch: each for each in course.beginnings}
    for launch in course.launches:
        saved = [each for each in course.saved if each.artefact.launch == launch]
        children = [each for each in course.came_of if each.launch == launch]
        beginning = beginnings.get(launch)
        if not saved and not children and not (beginning and beginning.rollback):
            silent.append(launch)
            continue
        lines += _silent(silent)
        silent = []
        sign = "*" if launch in present or (beginning and beginning.rollback) else "-"
        lines.append(_wrapped(f"  {sign} ", _launch(course, beginning, launch, saved, faulty, marked)))
        for by, group in _grouped(saved):
            if by is not None:
                lines.append(_wrapped("  |   ", f"{why_left(by)}: {_steps(group, faulty, marked)}"))
        lines += _children(children)
    return "\n".join([*lines, *_silent(silent)]).splitlines()


def _launch(
    course: Course,
    beginning: Beginning | None,
    launch: int,
    saved: Sequence[SavedHere],
    faulty: set[str],
    marked: str | None,
) -> str:
    what = f"launch {launch}" if launch else "by no launch"
    began = ""
    if beginning and beginning.rollback:
        return f"rollback {launch} to step {beginning.step:,}{_gone(course, beginning)}"
    if beginning and beginning.checkpoint:
        began = f" from {_source(course, beginning.checkpoint, beginning.step)}"
    elif beginning:
        began = f" from step {beginning.step:,}"
    here = [each for each in saved if each.left_by is None]
    return f"{what}{began}: {_steps(here, faulty, marked)}" if here else f"{what}{began}"


def _source(course: Course, identity: str, step: int | None = None) -> str:
    known = course.sources.get(identity)
    if known is None:
        return f"step {step:,}, which is deleted" if step else f"{identity[:12]}, which is not here"
    return known.name.removeprefix(course.run) if known.run == course.run else f"{known.name} ({known.id[:12]})"


def _gone(course: Course, beginning: Beginning) -> str:
    return "" if not beginning.checkpoint or beginning.checkpoint in course.sources else ", which is deleted"


def _grouped(saved: Sequence[SavedHere]) -> list[tuple[Beginning | None, list[SavedHere]]]:
    groups: dict[Beginning | None, list[SavedHere]] = {}
    for each in saved:
        groups.setdefault(each.left_by, []).append(each)
    return list(groups.items())


def _steps(saved: Sequence[SavedHere], faulty: set[str], marked: str | None) -> str:
    """A step is told once: its full checkpoint stands for its weights."""
    steps: dict[int, Artefact] = {}
    for each in saved:
        step = each.artefact.step
        assert step is not None
        if step not in steps or each.artefact.content == "full":
            steps[step] = each.artefact
    told = [_step(each, faulty, marked) for each in steps.values()]
    if len(told) <= 2 * _ENDS + 1:
        return ", ".join(told)
    between = list(steps.values())[_ENDS:-_ENDS]
    shown = [_step(each, faulty, marked) for each in between if each.id == marked]
    invalid = sum(each.id in faulty for each in between)
    more = f"... {len(between) - len(shown):,} more{f' ({invalid:,} of them invalid)' if invalid else ''} ..."
    return ", ".join([*told[:_ENDS], more, *shown, *told[-_ENDS:]])


def _step(artefact: Artefact, faulty: set[str], marked: str | None) -> str:
    words = [
        "weights" if artefact.content == "weights" else "",
        "INVALID" if artefact.state != "valid" else "invalid ancestor" if artefact.id in faulty else "",
        "elsewhere" if artefact.whereabouts != "here" else "",
    ]
    name = f"@{artefact.step:,}"
    return " ".join([f"[{name}]" if artefact.id == marked else name, *filter(None, words)])


def _children(children: Sequence[CameOf]) -> list[str]:
    evaluations = [each for each in children if each.name.startswith(_EVALUATION)]
    lines = _evaluations(evaluations)
    children = [each for each in children if each not in evaluations]
    for each in children[:_NOTED]:
        at = f" from @{each.step:,}" if each.step is not None else ""
        number = f": {counted(each.checkpoints, 'checkpoint')}" if each.checkpoints else ""
        lines.append(_wrapped("  |-> ", f"{each.name}{at}{number}"))
    if len(children) > _NOTED:
        lines.append(f"  |-> and {len(children) - _NOTED:,} more")
    return lines


def _evaluations(found: Sequence[CameOf]) -> list[str]:
    """A run has one of each step, so they share a line."""
    if not found:
        return []
    if len(found) == 1:
        at = f" of @{found[0].step:,}" if found[0].step is not None else ""
        return [_wrapped("  |-> ", f"evaluation{at}")]
    steps = [f"@{each.step:,}" for each in found if each.step is not None]
    if len(steps) > 2 * _ENDS + 1:
        steps = [*steps[:_ENDS], f"... {len(steps) - 2 * _ENDS:,} more ...", *steps[-_ENDS:]]
    return [_wrapped("  |-> ", f"{len(found):,} evaluations: {', '.join(steps)}")]


def _silent(launches: Sequence[int]) -> list[str]:
    if not launches:
        return []
    if len(launches) == 1:
        return [f"  - launch {launches[0]}: nothing that it saved is here"]
    return [f"  - launches {launches[0]} to {launches[-1]}: nothing that they saved is here"]


def _wrapped(beginning: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=beginning,
        subsequent_indent=f"  |{' ' * max(len(beginning) - 1, 3)}",
        break_long_words=False,
        break_on_hyphens=False,
    )
