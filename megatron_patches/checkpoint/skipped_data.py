"""Whether a run that goes on leaves out of its data what it left out so far. Torch-free."""

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


def last_step_before(place: int, skipped: SkippedSamples, config: RunConfig) -> int:
    """The last step after which a run has not read the sample at a place yet."""
    steps = range(1, config.timetable.steps + 1)
    return bisect_right(steps, place, key=lambda step: skipped.reached(config.timetable.after(step).samples))


def _told(ranges: Iterable[Range]) -> str:
    return shown(ranges) or "empty"
