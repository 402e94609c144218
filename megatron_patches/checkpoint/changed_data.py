"""Whether a run that goes on has read what its data section says of the samples behind it. Torch-free."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_tools.data_plan import describe_change
from data_tools.samples.skipping import LAST_PLACE, Range, SkippedSamples, first_difference, ranges_of, shown
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkpoint.resume_check import SavedStep
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable
from megatron_patches.run.config import RunConfig


def skipped_in(folder: Path) -> SkippedSamples:
    """What the run was to leave out when a checkpoint was saved; nothing in those from before there was such a key.

    Raises:
        TrainyardError: the checkpoint's configuration cannot be read.
    """
    path = folder / CONFIG
    data = read_yaml(path).get("data")
    try:
        return SkippedSamples(ranges_of(data.get("skip_samples", [])) if isinstance(data, dict) else ())
    except TrainyardError as error:
        raise Damaged(f"{printable(path)}: data.skip_samples: {error}") from None


def data_behind_problems(saved: SavedStep, config: RunConfig) -> Iterator[str]:
    """What a checkpoint was trained on and the configuration says otherwise: samples left out, changes of sources."""
    yield from skipped_data_problems(saved, config)
    yield from changed_sources_problems(saved, config)


def skipped_data_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """Ranges that were changed where the run has been: what it was trained on would not be what it says."""
    try:
        before = skipped_in(newest.folder)
    except TrainyardError:
        return  # such a checkpoint is not whole: a resume passes it over, and says so
    now = [(first, end) for first, end in config.data.skip_samples]
    changed = first_difference(before.ranges, now)
    if changed is None or changed >= before.reached(newest.samples):
        return
    step = last_step_before(changed, before, config)
    yield (
        f"data.skip_samples is {_told(before.ranges)} in {newest.folder} and {_told(now)} now, which differs from "
        f"sample {changed:,} on: the run has passed it. Restore the key; to leave out other samples, roll back to a "
        f"step at or before {step:,} (tools/runs rollback {config.name} --to STEP --skip FROM:TO)"
    )


def changed_sources_problems(newest: SavedStep, config: RunConfig) -> Iterator[str]:
    """Changes of sources that were added, removed or altered where the run has been."""
    try:
        before = _changes_by_step(_changes_in(newest.folder))
    except TrainyardError:
        return  # as in `skipped_data_problems`
    now = _changes_by_step(config.data.model_dump()["changes"])
    differ = [step for step in sorted(before.keys() | now.keys()) if before.get(step) != now.get(step)]
    if differ and differ[0] < newest.step:
        yield (
            f"data.changes from step {differ[0]:,} on is another than in {newest.folder}, and the run has passed that "
            f"step: what it was trained on would not be what it says. Restore the key; a change from step "
            f"{newest.step:,} on may be added (data.changes), or roll back first (tools/runs rollback)"
        )


def replaced_sources(saved: SavedStep, config: RunConfig) -> set[str]:
    """Names of sources that a checkpoint had not read and that have another path, text, range, shards or order now.

    One that reads other documents although the run says the same of it is none of them: its dataset was made again,
    which is no change that anybody asked for.
    """
    try:
        before = _of_each(_changes_in(saved.folder))
    except TrainyardError:
        return set()  # as in `skipped_data_problems`
    changes = config.data.model_dump()["changes"]
    now = _of_each(changes)
    read = {source.name for source in config.data.first_sources}
    read |= _of_each(change for change in changes if change["from_step"] < saved.step).keys()
    return {name for name in (before.keys() & now.keys()) - read if before[name] != now[name]}


def told_changes(before: object, now: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Changes of sources that one `data.changes` has and the other has not, each in a line."""
    mine, theirs = (list(_well_formed(changes)) for changes in (before, now))
    pairs = ((mine, theirs), (theirs, mine))
    gone, new = (tuple(describe_change(each) for each in these if each not in others) for these, others in pairs)
    return gone, new


def _changes_in(folder: Path) -> object:
    """`data.changes` that a checkpoint was saved with; there was no such key in those of earlier versions."""
    data = read_yaml(folder / CONFIG).get("data")
    return data.get("changes", []) if isinstance(data, dict) else []


def _well_formed(changes: object) -> Iterator[Mapping[str, Any]]:
    """Those of a list that have a step, and sources with names."""
    for change in changes if isinstance(changes, Iterable) else ():
        if not isinstance(change, Mapping) or whole_of(change.get("from_step"), LAST_PLACE) is None:
            continue
        sources = change.get("sources")
        if isinstance(sources, list) and all(isinstance(each, Mapping) and _is_named(each) for each in sources):
            yield change


def _is_named(source: Mapping[str, Any]) -> bool:
    return isinstance(source.get("name"), str)


def _of_each(changes: object) -> dict[str, tuple[object, ...]]:
    """What each source of these changes reads, by its name."""
    sources = (source for change in _well_formed(changes) for source in change["sources"])
    keys = ("path", "text", "range", "shards", "order")
    return {source["name"]: tuple(_value(source, key) for key in keys) for source in sources}


def _value(source: Mapping[str, Any], key: str) -> object:
    """Sources of earlier versions had no key for their order."""
    return source.get(key, "shuffled" if key == "order" else None)


def _changes_by_step(changes: object) -> dict[int, list[tuple[object, ...]]]:
    """What each change reads, by its step; paths are left out, since the same dataset may lie somewhere else."""
    keys = ("name", "weight", "range", "shards", "order")
    return {
        change["from_step"]: [tuple(_value(source, key) for key in keys) for source in change["sources"]]
        for change in _well_formed(changes)
    }


def last_step_before(place: int, skipped: SkippedSamples, config: RunConfig) -> int:
    """The last step after which a run has not read the sample at a place yet."""
    steps = range(1, config.timetable.steps + 1)
    return bisect_right(steps, place, key=lambda step: skipped.reached(config.timetable.after(step).samples))


def _told(ranges: Iterable[Range]) -> str:
    return shown(ranges) or "empty"
