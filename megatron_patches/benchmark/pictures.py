"""Pictures of the record: a roofline and where the time goes, for each model that was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from megatron_patches.benchmark.record import Row
from megatron_patches.benchmark.text import describe_layout
from megatron_patches.config import RunConfig
from megatron_patches.estimate.step_time import work_of
from megatron_patches.hardware import HARDWARE, Hardware, peak_of
from megatron_patches.layout import plan_layout

mpl.rcParams["svg.hashsalt"] = "trainyard"  # the same record gives the same file


def draw_roofline(run: str, measured: Sequence[tuple[dict[str, Any], RunConfig]], target: Path) -> None:
    """TFLOP/s of each process against FLOPs for each byte that its step moves; roofs are those of the GPU's data sheet.

    Bytes are those of activations and of the optimizer's state, as `estimate` counts them; weights that are read from
    caches are not. On a CPU there is no roof: none is known for certain.
    """
    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot()
    for found, config in measured:
        layout = plan_layout(config, found["layout"]["tensor"] * found["layout"]["pipeline"] * found["layout"]["data"])
        work = work_of(config, layout, layout.world_size, "cpu" if _gpu(found) is None else "cuda").amounts
        intensity = work["compute"] / (work["activations"] + work["optimizer"])
        axes.plot(intensity, found["tflops"]["computed"], "o", label=_label(found))
    known = next((gpu for found, _ in measured if (gpu := _gpu(found))), None)
    precision = measured[0][0]["precision"]
    peak = peak_of(known, precision) if known else None
    if known is not None and peak is not None:
        intensities = [2.0**power for power in range(0, 13)]
        roof = [min(peak, each * known.memory_bandwidth / 1e12) for each in intensities]
        axes.plot(intensities, roof, "k-", label=f"{known.name}, {precision}: {peak:g} TFLOP/s")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs for each byte moved", ylabel="TFLOP/s of a process", title=run)
    axes.legend(fontsize=7)
    figure.savefig(target, metadata={"Date": None})


def draw_breakdown(run: str, rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Milliseconds of a profiled step by kind, a bar a layout."""
    figure = Figure(figsize=(7, 1.2 + 0.6 * len(rows)))
    axes = figure.add_subplot()
    kinds = list(rows[0]["breakdown"])
    left = [0.0] * len(rows)
    for kind in kinds:
        widths = [found["breakdown"][kind] * 1e3 for found in rows]
        axes.barh([_label(found) for found in rows], widths, left=left, label=kind)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="ms of a step", title=run)
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    figure.savefig(target, metadata={"Date": None}, bbox_inches="tight")


def measured_rows(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """What was measured, by run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.found is not None:
            found.setdefault(row.found["run"], []).append(row.found)
    return found


def _gpu(found: dict[str, Any]) -> Hardware | None:
    return next((each for each in HARDWARE if found["hardware"].endswith(each.driver_names)), None)


def _label(found: dict[str, Any]) -> str:
    again = f", {found['recomputation']}" if found["recomputation"] != "none" else ""
    return f"{describe_layout(found['layout'])}, micro-batch {found['micro_batch_size']}{again}"
