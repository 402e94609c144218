"""A run's configuration with what its newest rollback leaves out."""

from dataclasses import replace

from data_tools.samples.skipping import united
from megatron_patches.run.reading import ReadRun
from megatron_patches.run.rollback_record import newest_rollback
from megatron_patches.run.run_directory import run_directory


def with_rollback(run: ReadRun) -> ReadRun:
    """A run that leaves out also what its newest rollback says; raises Damaged where that cannot be read."""
    record = newest_rollback(run_directory(run.config))
    if record is None or not record.skip_samples:
        return run
    ranges = united([*record.skip_samples, *((first, end) for first, end in run.config.data.skip_samples)])
    data = run.config.data.model_copy(update={"skip_samples": [list(each) for each in ranges]})
    return replace(run, config=run.config.model_copy(update={"data": data}))
