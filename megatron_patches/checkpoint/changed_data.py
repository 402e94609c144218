"""Whether a run that goes on has read what its data section says of the samples behind it. Torch-free."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_tools.samples.skipping import Range, SkippedSamples, first_difference, ranges_of, shown
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkpoint.resume_check import SavedStep
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, TrainyardError
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
        saved = read_yaml(newest.folder / CONFIG).get("data")
    except TrainyardError:
        return  # as in `skipped_data_problems`
    before = _changes_by_step(saved.get("changes", []) if isinstance(saved, dict) else [])
    now = _changes_by_step([each.model_dump() for each in config.data.changes])
    differ = [step for step in sorted(before.keys() | now.keys()) if before.get(step) != now.get(step)]
    if differ and differ[0] < newest.step:
        yield (
            f"data.changes from step {differ[0]:,} on is another than in {newest.folder}, and the run has passed that "
            f"step: what it was trained on would not be what it says. Restore the key; a change from step "
            f"{newest.step:,} on may be added (data.changes), or roll back first (tools/runs rollback)"
        )


def _changes_by_step(changes: object) -> dict[int, list[tuple[object, ...]]]:
    """What each change reads, by its step; paths are left out, since the same dataset may lie somewhere else."""
    found: dict[int, list[tuple[object, ...]]] = {}
    for change in (each for each in changes if isinstance(each, dict)) if isinstance(changes, list) else ():
        step, sources = change.get("from_step"), change.get("sources")
        if isinstance(step, int) and isinstance(sources, list):
            keys = ("name", "weight", "range", "shards")
            found[step] = [tuple(source.get(key) for key in keys) for source in sources if isinstance(source, dict)]
    return found


def last_step_before(place: int, skipped: SkippedSamples, config: RunConfig) -> int:
    """The last step after which a run has not read the sample at a place yet."""
    steps = range(1, config.timetable.steps + 1)
    return bisect_right(steps, place, key=lambda step: skipped.reached(config.timetable.after(step).samples))


def _told(ranges: Iterable[Range]) -> str:
    return shown(ranges) or "empty"
