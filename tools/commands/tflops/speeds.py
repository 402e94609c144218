"""Machines as `tools/tflops` is told of them, and what is known of their speed."""

from collections.abc import Sequence
from typing import Any

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.report import Machines
from megatron_patches.estimate.step_time import Speeds, data_sheet_speeds, work_of
from megatron_patches.hardware.machines import Hardware, cpu_name, hardware_named
from megatron_patches.report.record import Row, read_rows, record_files
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.reading import load_run
from megatron_patches.tuning.calibration import USUAL_OF_A_CPU, Measured, calibrate
from tools.run_files.catalogue import find_run


def machines_of(config: RunConfig, nodes: int, gpus_per_node: int | None, gpu: str | None) -> Machines:
    """Where the run is to be; by default so many GPUs as hold one copy of the model, at most 8 a node."""
    model = config.parallel.tensor * config.parallel.pipeline
    if gpus_per_node is None:
        gpus_per_node = next(count for count in range(min(8, model), 0, -1) if model % count == 0)
        nodes = max(nodes, model // gpus_per_node)
    return Machines(nodes, gpus_per_node, hardware_named(gpu) if gpu else None)


def known_speeds(config: RunConfig, machines: Machines) -> Speeds | None:
    """Speeds of a GPU in the run's precision, measured where there is a record; None where nothing is known of it."""
    if machines.hardware is None:
        return None
    usual = data_sheet_speeds(machines.hardware, config.training.precision)
    if usual is None:
        return None
    return calibrate(measured_layouts(read_rows(record_files(CHECKOUT)), machines), usual)


def usual_speeds(config: RunConfig, hardware: Hardware | None) -> Speeds:
    """Where calibration starts: the data sheet, or a CPU's usual speeds."""
    if hardware is None:
        return USUAL_OF_A_CPU
    speeds = data_sheet_speeds(hardware, config.training.precision)
    if speeds is None:
        raise TrainyardError(
            f"a {hardware.name} has no units for {config.training.precision}; choose --training.precision fp16 or fp32"
        )
    return speeds


def measured_layouts(rows: Sequence[Row], machines: Machines) -> list[Measured]:
    """What records say of this machine: steps of any run on so many processes of the same hardware."""
    name = machines.hardware.driver_names if machines.hardware else (cpu_name(),)
    device = "cuda" if machines.hardware else "cpu"
    learned = []
    for row in rows:
        if row.found is None or not row.found["hardware"].endswith(name):
            continue
        config = load_run(find_run(row.found["run"], CHECKOUT), row.found["overrides"])
        layout = plan_layout(config, _processes(row.found))
        work = work_of(config, layout, machines.gpus_per_node, device)  # type: ignore[arg-type]
        learned.append(Measured(work, row.found["step_seconds"]["median"]))
    return learned


def _processes(found: dict[str, Any]) -> int:
    layout = found["layout"]
    return layout["tensor"] * layout["pipeline"] * layout["data"]
