"""Pictures of the record: a roofline and where the time goes, for each model that was measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from megatron_patches.estimate.step_time import work_of
from megatron_patches.hardware.machines import HARDWARE, Hardware, peak_of
from megatron_patches.profiling.time_breakdown import KINDS
from megatron_patches.report.record import Row
from megatron_patches.report.text import describe_layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout

mpl.rcParams["svg.hashsalt"] = "trainyard"  # the same record gives the same file


def draw_roofline(run: str, measured: Sequence[tuple[dict[str, Any], RunConfig]], target: Path) -> None:
    """TFLOP/s of each process against FLOPs for each byte that its step moves, under the roof of its hardware.

    A GPU's roof is its data sheet's, a CPU's what was measured beside the step; without either there is none. Bytes are
    those of activations and of the optimizer's state, as `estimate` counts them; weights that are read from caches are
    not.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    roofs: dict[str, tuple[float, float]] = {}
    intensities = []
    for found, config in measured:
        layout = plan_layout(config, found["layout"]["tensor"] * found["layout"]["pipeline"] * found["layout"]["data"])
        work = work_of(config, layout, layout.world_size, "cpu" if _gpu(found) is None else "cuda").amounts
        intensities.append(work["compute"] / (work["activations"] + work["optimizer"]))
        axes.plot(intensities[-1], found["tflops"]["computed"], "o", label=_label(found))
        if (roof := roof_of(found)) is not None:
            roofs[roof[0]] = roof[1:]
    for name, (peak, bandwidth) in roofs.items():
        ridge = peak * 1e12 / bandwidth  # to its left the memory is the roof, to its right the arithmetic
        ends = [min(ridge, *intensities) / 4, ridge, max(ridge, *intensities) * 4]
        axes.plot(ends, [min(peak, each * bandwidth / 1e12) for each in ends], "-", label=name, zorder=1)
    axes.set(
        xscale="log", yscale="log", xlabel="FLOPs for each byte moved (FLOP/byte)",
        ylabel="speed of a process (TFLOP/s)", title=f"{run}, {_size(measured[0][0])}",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    speeds = [found["tflops"]["computed"] for found, _ in measured] + [peak for peak, _ in roofs.values()]
    axes.set_ylim(10 ** math.floor(math.log10(min(speeds) / 1.5)), 10 ** math.ceil(math.log10(max(speeds) * 1.5)))
    axes.set_axisbelow(True)
    axes.grid(which="major", color="0.9")
    hardware = measured[0][0]["hardware"]
    figure.legend(fontsize=8, ncols=2, loc="outside lower center", title=hardware, title_fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def draw_breakdown(run: str, rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Milliseconds of a profiled step by kind, a bar a layout; shares where there is room for them."""
    figure = Figure(figsize=(7, 1.7 + 0.6 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    whole = [sum(found["breakdown"].values()) * 1e3 for found in rows]
    left = [0.0] * len(rows)
    for number, kind in enumerate(KINDS):
        widths = [found["breakdown"].get(kind, 0.0) * 1e3 for found in rows]
        bars = axes.barh(
            [_label(found).replace(", ZeRO", ",\nZeRO") for found in rows],
            widths,
            left=left,
            label=kind,
            color=f"C{number}",
        )
        shares = [width / each for width, each in zip(widths, whole, strict=True)]
        axes.bar_label(
            bars, [f"{share:.0%}" if share > 0.04 else "" for share in shares], label_type="center", fontsize=8
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="time of a step (ms)")
    figure.suptitle(f"{run}, {_size(rows[0])}: {rows[0]['hardware']}", fontsize=10)
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()  # the first row on top
    figure.legend(fontsize=8, ncols=4, loc="outside lower center")
    figure.savefig(target, metadata={"Date": None})


def measured_rows(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """What was measured, by run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.found is not None:
            found.setdefault(row.found["run"], []).append(row.found)
    return found


def _gpu(found: dict[str, Any]) -> Hardware | None:
    return next((each for each in HARDWARE if found["hardware"].endswith(each.driver_names)), None)


def roof_of(found: dict[str, Any]) -> tuple[str, float, float] | None:
    """Its name, TFLOP/s and bytes/s of a process; None where neither a data sheet nor a measurement knows them."""
    precision = found["precision"]
    gpu = _gpu(found)
    if gpu is not None:
        peak = peak_of(gpu, precision)
        return (f"{gpu.name}, {precision}: {peak:g} TFLOP/s", peak, gpu.memory_bandwidth) if peak is not None else None
    best = found.get("roof")
    if best is None:
        return None
    peak, bandwidth = best["tflops"], best["bytes_per_second"]
    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    return f"measured, {precision}, {threads}: {peak:.3g} TFLOP/s, {bandwidth / 1e9:.3g} GB/s", peak, bandwidth


def _size(found: dict[str, Any]) -> str:
    return f"{found['parameters'] / 1e6:,.3g}M parameters"


def _label(found: dict[str, Any]) -> str:
    again = f", {found['recomputation']}" if found["recomputation"] != "none" else ""
    return f"{describe_layout(found['layout'])}, micro-batch {found['micro_batch_size']}{again}"
