"""`tools/tflops draw`: pictures of the record."""

from collections.abc import Iterator
from pathlib import Path

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.report.record import read_rows, record_files
from megatron_patches.run.reading import load_run
from tools.run_files.catalogue import find_run


def draw_all(folder: Path, record: Path | None) -> Iterator[Path]:
    """Make them, one after the other; where no step was profiled there is no picture of its time.

    Raises:
        TrainyardError: nothing was measured.
    """
    from megatron_patches.report.pictures import draw_breakdown, draw_roofline, measured_rows

    runs = measured_rows(read_rows([record] if record else record_files(CHECKOUT)))
    if not runs:
        raise TrainyardError("nothing is measured in the record: tools/tflops bench RUN --record FILE")
    folder.mkdir(parents=True, exist_ok=True)
    for run, found in runs.items():
        path = find_run(run, CHECKOUT)
        target = folder / f"{run}-roofline.svg"
        draw_roofline(run, [(each, load_run(path, each["overrides"])) for each in found], target)
        yield target
        if profiled := [each for each in found if each["breakdown"]]:
            draw_breakdown(run, profiled, folder / f"{run}-time.svg")
            yield folder / f"{run}-time.svg"
