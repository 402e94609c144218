"""What a comparison says: medians, ratios, and what it was measured on and with."""

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from statistics import median
from typing import Any

from data_tools.benchmark.comparison import Comparison, Measured
from megatron_patches.artefacts.provenance import known_revision
from megatron_patches.checkout import CHECKOUT
from megatron_patches.hardware.machines import cpu_name

_LIBRARIES = ("tokenizers", "gigatoken", "fastokens", "sentencepiece", "transformers", "orjson", "numpy")


@dataclass(frozen=True)
class Medians:
    """Medians of one contender over the rounds; None where nothing was timed."""

    whole: float | None
    """seconds"""
    start: float | None
    """seconds"""
    work: float | None
    """seconds: `whole` without `start`, round by round"""
    cpu: float | None
    """seconds"""
    memory: int
    """bytes"""


@dataclass(frozen=True)
class Setting:
    """What was measured, and where."""

    text: str
    """in words"""
    bytes: int
    tokenizer: str
    """in words"""
    command: str


def medians_of(measured: Measured) -> Medians:
    """The medians of a contender."""
    if not measured.whole:
        return Medians(None, None, None, None, measured.memory)
    timed = (measured.whole, measured.start, measured.work, measured.cpu)
    whole, start, work, cpu = map(median, timed)
    return Medians(whole, start, work, cpu, measured.memory)


def ratios_of(comparison: Comparison) -> dict[str, tuple[float, float]]:
    """(whole process, work) of each peer as multiples of ours, of medians; empty where nothing was timed."""
    ours, *peers = comparison.measured
    if not ours.whole:
        return {}
    whole, work = median(ours.whole), median(ours.work)
    return {peer.name: (median(peer.whole) / whole, median(peer.work) / work) for peer in peers}


def machine() -> dict[str, str]:
    """Machine, date, and the versions that matter; libraries that are not installed are left out."""
    found = {"machine": cpu_name(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version()}
    found["revision"] = known_revision(CHECKOUT).text or "unknown"
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(comparison: Comparison, setting: Setting) -> dict[str, Any]:
    """All that was measured, for a file."""
    return {
        **machine(),
        **asdict(setting),
        "measured": [asdict(each) | {"median": asdict(medians_of(each))} for each in comparison.measured],
        "ratios": {name: {"whole": whole, "work": work} for name, (whole, work) in ratios_of(comparison).items()},
        "left_out": comparison.left_out,
        "identical": comparison.files._asdict(),
    }
