"""What `tools/dataset blend` shows: a table, values, and the data section of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from data_tools.samples.blend import PERIOD, whole_weights
from megatron_patches.configuration.yaml_text import RunDumper
from tools.commands.dataset.blend_sources import BlendSource

HEAD = ["source", "tokens", "share", "weight", f"of {PERIOD:,}"]
HEAD_OF_READING = ["tokens read", "epochs"]
_FAR_OFF = 0.05
"""a whole weight is told where it misses what was asked for by more than this part of it"""


@dataclass(frozen=True)
class Blend:
    """Sources with their weights."""

    sources: Sequence[BlendSource]
    asked: Sequence[float]
    """Weights before any limit and any rounding, of any sum."""
    whole: Sequence[int]
    """Weights as a run uses them; they sum to `PERIOD`."""
    tokens: int | None
    """To be read in all."""
    most_epochs: float | None
    """How often each source may be read."""

    def read(self, number: int) -> int:
        """Tokens that are read of a source, to the nearest one."""
        assert self.tokens is not None
        return round(self.tokens * self.whole[number] / PERIOD)

    def epochs(self, number: int) -> float:
        """How often a source is read."""
        assert self.tokens is not None
        return self.tokens * self.whole[number] / PERIOD / self.sources[number].tokens


def rows(blend: Blend) -> Iterator[list[str]]:
    """The sources in the order of `HEAD`, and of `HEAD_OF_READING` where the tokens to be read are known."""
    held = sum(source.tokens for source in blend.sources)
    for number, source in enumerate(blend.sources):
        whole = blend.whole[number]
        row = [source.name, f"{source.tokens:,}", f"{source.tokens / held:.3%}", f"{whole / PERIOD:.3%}", f"{whole:,}"]
        yield row if blend.tokens is None else [*row, f"{blend.read(number):,}", f"{blend.epochs(number):.3f}"]
    whole_row = ["(all)", f"{held:,}", f"{1:.3%}", f"{1:.3%}", f"{PERIOD:,}"]
    yield whole_row if blend.tokens is None else [*whole_row, f"{blend.tokens:,}", f"{blend.tokens / held:.3f}"]


def as_values(blend: Blend, split: str) -> dict[str, Any]:
    """The same for other programs."""
    held = sum(source.tokens for source in blend.sources)
    asked = sum(blend.asked)
    described = []
    for number, source in enumerate(blend.sources):
        values = {
            "name": source.name,
            "path": source.path,
            "datasets": [str(each) for each in source.datasets],
            "tokens": source.tokens,
            "share": source.tokens / held,
            "asked": blend.asked[number] / asked,
            "weight": blend.whole[number] / PERIOD,
            "whole_weight": blend.whole[number],
        }
        if blend.tokens is not None:
            values |= {"tokens_read": blend.read(number), "epochs": blend.epochs(number)}
        described.append(values)
    return {
        "period": PERIOD,
        "split": split or None,
        "tokens": blend.tokens,
        "max_epochs": blend.most_epochs,
        "sources": described,
    }


def as_yaml_section(blend: Blend, split: str) -> str:
    """The `data:` section of a run, a source a line; a run makes the same whole weights of it."""
    lines = ["data:", "  path: null  # in place of a base run's"]
    if split:
        lines.append(f"  split: {_flow(split)}")
    lines.append("  sources:")
    for source, weight in zip(blend.sources, written_weights(blend), strict=True):
        entry: dict[str, Any] = {"name": source.name, "weight": weight, "path": source.path}
        if blend.most_epochs is not None:
            most = blend.most_epochs
            entry["max_epochs"] = int(most) if most.is_integer() else most
        lines.append(f"    - {_flow(entry)}")
    return "\n".join(lines) + "\n"


def written_weights(blend: Blend) -> list[float]:
    """Weights that sum to 1 in as few digits as give the same whole weights."""
    total = sum(blend.asked)
    exact = [whole / PERIOD for whole in blend.whole]
    for digits in range(2, 13):
        for shares in ([asked / total for asked in blend.asked], exact):
            weights = [float(f"{share:.{digits}g}") for share in shares]
            if min(weights) > 0 and whole_weights(weights) == tuple(blend.whole):
                return weights
    return exact


def remarks(blend: Blend) -> list[str]:
    """What a reader of the weights should know of them: limits that were reached, and roundings that are large."""
    told = []
    if blend.tokens is not None and blend.most_epochs is not None:
        limited = [
            source.name
            for source, whole in zip(blend.sources, blend.whole, strict=True)
            if blend.tokens * (whole + 1) / PERIOD > blend.most_epochs * source.tokens
        ]
        if limited:
            told.append(
                f"at the limit of --max-epochs {blend.most_epochs:g}: {_some(limited)}; a run counts whole samples, of "
                "which small sources hold up to one less: if its launch refuses, give fewer --tokens"
            )
        return told
    asked = sum(blend.asked)
    wanted = [weight / asked * PERIOD for weight in blend.asked]
    rounded = [
        f"{source.name} ({whole} for {share:.3g})"
        for source, whole, share in zip(blend.sources, blend.whole, wanted, strict=True)
        if abs(whole - share) > _FAR_OFF * share
    ]
    if rounded:
        told.append(f"weights are whole parts of {PERIOD:,}, which changes small ones: {_some(rounded)}")
    return told


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:10]) + (f" and {len(texts) - 10:,} more" if len(texts) > 10 else "")


def _flow(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=RunDumper, default_flow_style=True, sort_keys=False, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...")
