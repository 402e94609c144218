"""Work in a run's folder that a launch does not resume from: none of it is passed over without a word. Torch-free."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

from megatron_patches.artefacts.branch import Beginning, abandoned, stated_facts, why_left
from megatron_patches.artefacts.deletion import link_target
from megatron_patches.artefacts.folders import (
    CheckpointName,
    inspect,
    is_replaced,
    is_spoilt,
    name_before,
    parse_checkpoint_name,
)
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.artefacts.unfinished import Unfinished, unfinished_kind
from megatron_patches.checkpoint.resume_check import fact_problems
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.sizes import counted

OPTION = "--checkpoint.allow_from_scratch true"
_TOLD = 5  # of many; a run that was saved a thousand times would fill the screen
_UNFINISHED: dict[Unfinished, str] = {
    "save": "a save that was killed",
    "deletion": "a deletion that was killed",
    "pull": "a pull that was interrupted; the same pull goes on with it",
    "temporary": "left by a program that was killed",
}


@dataclass(frozen=True)
class OtherWork:
    """One entry of a run's folder."""

    name: str
    """within the run's folder; safe to print"""
    step: int | None
    """the step that its name tells"""
    what: str
    """why no launch resumes from it"""
    is_work: bool = True
    """whether a start at step 0 beside it must be asked for"""

    def __str__(self) -> str:
        return f"{self.name} ({self.what})"


def other_work(
    run: RunFolder, allow_inherited_fault: bool, above: int = -1, begins_from: Path | None = None
) -> list[OtherWork]:
    """Everything of the kind, the newest step first.

    Args:
        above: only what is of a later step, or of none that is known.
        begins_from: folder whose weights the run begins with (`init_from`), which is not left aside then.

    Raises:
        OSError: a folder cannot be read.
    """
    used = begins_from.resolve() if begins_from else None
    found = [*_of_checkpoints(run, allow_inherited_fault, above, used), *_elsewhere(run)]
    found = [each for each in found if each.step is None or each.step > above]
    return sorted(found, key=lambda each: (-1 if each.step is None else each.step, each.name), reverse=True)


def told_together(found: Sequence[OtherWork]) -> list[str]:
    """A line for each entry; many that are the same case share one, since a rollback may leave hundreds."""
    alike: dict[str, list[OtherWork]] = {}
    for each in found:
        alike.setdefault(each.what, []).append(each)
    lines = []
    for what, group in alike.items():
        if len(group) <= _TOLD:
            lines += [str(each) for each in group]
        else:
            lines.append(f"{counted(len(group), 'entry', 'entries')}, {group[0].name} to {group[-1].name} ({what})")
    return lines


def from_scratch_problems(run: RunFolder, found: Sequence[OtherWork], allowed: bool) -> Iterator[str]:
    """A start at step 0 beside work that cannot be continued, where nobody asked for it."""
    work = [each for each in found if each.is_work]
    if not work or allowed:
        return
    told = "; ".join(str(each) for each in work[:_TOLD])
    more = f"; and {counted(len(work) - _TOLD, 'other')}" if len(work) > _TOLD else ""
    yield (
        f"{run.path} holds work and no checkpoint that can be resumed from: {told}{more}. To go on, bring back a whole "
        f"checkpoint (tools/sync-to-hub pull {run.name} --from ADDRESS --steps N); to begin from weights alone, name "
        f"them (--init_from {run.name}@STEP/weights); to leave that run alone, start one under another name "
        f"(tools/runs new); to begin at step 0 beside this work, add {OPTION}"
    )


def _of_checkpoints(run: RunFolder, allow_inherited_fault: bool, above: int, used: Path | None) -> Iterator[OtherWork]:
    left = {path: why_left(by) for path, by in _left_behind(run).items()}
    for path in _entries(run.checkpoints):
        if used is not None and path.resolve() == used:
            continue
        name = parse_checkpoint_name(path.name)
        shown = f"{run.checkpoints.name}/{printable(path.name)}"
        if (kind := unfinished_kind(path.name)) is not None:
            yield OtherWork(shown, _step_in(path.name), _UNFINISHED[kind], is_work=kind == "pull")
        elif path in left:
            again = "; a later save has its name" if is_replaced(path.name) else ""
            yield OtherWork(shown, _step_in(path.name), f"{left[path]}{again}", is_work=False)
        elif is_replaced(path.name):
            yield OtherWork(shown, _step_in(path.name), f"{_damaged(path)}a later save replaced it")
        elif name is not None and name.step > above and (why := _why_not(path, name, allow_inherited_fault)):
            yield OtherWork(shown, name.step, why)


def _left_behind(run: RunFolder) -> dict[Path, Beginning]:
    """Those that are in order and lie on no launch's way any more, by the beginning that left them."""
    folders = [path for path in _entries(run.checkpoints) if parse_checkpoint_name(name_before(path.name))]
    left = abandoned(run, stated_facts(folders))
    return {path: by for path, by in left.items() if not is_replaced(path.name) or not is_spoilt(path)}


def _damaged(path: Path) -> str:
    return "damaged; " if is_spoilt(path) else ""


def _why_not(path: Path, name: CheckpointName, allow_inherited_fault: bool) -> str:
    """Why a launch does not resume from an entry of this name; empty where it may."""
    try:
        is_folder = path.is_dir()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not is_folder:
        leads = f"a link to {link_target(path)}, where no folder lies" if path.is_symlink() else "no folder"
        return f"{leads}; restore it, or remove it"
    if name.content == "weights":
        return "weights alone, without the optimizer's state"
    if name.ending:
        return "a name that checkpoints have under elsewhere/"
    inspection = inspect(path, allow_inherited_fault)
    of_facts = fact_problems(path, inspection.manifest) if inspection.manifest else []
    if problems := [*inspection.problems, *of_facts]:
        more = f", and {counted(len(problems) - 1, 'more problem')}" if len(problems) > 1 else ""
        return f"{shortened(problems[0], 400)}{more}"
    return "it was found damaged when it was read last" if is_damaged(path) else ""


def _elsewhere(run: RunFolder) -> Iterator[OtherWork]:
    for path in _entries(run.elsewhere):
        name = parse_checkpoint_name(path.name)
        if name is not None:
            what = "its manifest; the files lie elsewhere (tools/inventory where RUN@STEP)"
            yield OtherWork(f"{run.elsewhere.name}/{path.name}", name.step, what)


def _entries(shelf: Path) -> list[Path]:
    return sorted(shelf.iterdir()) if lexists(shelf) and shelf.is_dir() else []


def _step_in(name: str) -> int | None:
    """Of the checkpoint that a leftover was, or was to be."""
    found = parse_checkpoint_name(name.split(".")[0])
    return found.step if found else None
