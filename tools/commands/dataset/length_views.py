"""What `tools/dataset lengths` shows: values, a plot of characters, a picture."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_tools.datasets.lengths import LengthBin, LengthHistogram
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from tools.tables import print_facts, print_table
from tools.terminal import tell

QUANTILES = {"min": 0.0, "1%": 0.01, "10%": 0.1, "50%": 0.5, "90%": 0.9, "99%": 0.99, "max": 1.0}
ROWS = 24
"""bins of the plot of characters at most, the empty documents' not among them, where lengths do not span 2^24"""
BARS = 32
"""the same of the picture and of --json"""
COLUMNS = 80


def describe_lengths(histogram: LengthHistogram, limits: Sequence[int]) -> dict[str, Any]:
    """The answer as values: counts, quantiles in tokens, what is longer than each limit, and a histogram."""
    longer = {limit: histogram.longer_than(limit) for limit in limits}
    return {
        "documents": histogram.number_of_documents,
        "tokens": histogram.tokens,
        "quantiles": {name: histogram.quantile(share) for name, share in QUANTILES.items()},
        "longer_than": [
            {
                "limit": limit,
                "documents": documents,
                "share_of_documents": documents / histogram.number_of_documents,
                "tokens": tokens,
                "share_of_tokens": tokens / histogram.tokens,
            }
            for limit, (documents, tokens) in longer.items()
        ],
        "histogram": [each._asdict() for each in histogram.bins(BARS)],
    }


def print_lengths(histogram: LengthHistogram, name: str, limits: Sequence[int]) -> None:
    """Prints the same for people, within 80 columns."""
    mean = histogram.tokens / histogram.number_of_documents
    print_facts(
        [
            ("dataset", name),
            ("documents", f"{histogram.number_of_documents:,}"),
            ("tokens", f"{histogram.tokens:,}, {mean:,.1f} a document"),
            ("quantiles", ", ".join(f"{name} {histogram.quantile(share):,}" for name, share in QUANTILES.items())),
        ]
    )
    tell()
    for line in plot(histogram):
        tell(line)
    if limits:
        tell()
        rows = []
        for limit in limits:
            documents, tokens = histogram.longer_than(limit)
            of_documents, of_tokens = documents / histogram.number_of_documents, tokens / histogram.tokens
            rows.append([f"{limit:,}", f"{documents:,}", f"{of_documents:.2%}", f"{tokens:,}", f"{of_tokens:.2%}"])
        print_table(["longer than", "documents", "of all", "tokens in them", "of all"], rows, numbers=range(5))


def plot(histogram: LengthHistogram) -> list[str]:
    """The histogram in lines: lengths, a bar and the number of documents, and their share of the tokens.

    A bar is as long as its number of documents, on a linear scale; one that is there has a mark at least.
    """
    bins = histogram.bins(ROWS)
    most = max(each.documents for each in bins)
    labels = [_label(each) for each in bins]
    width = max(len("tokens"), *map(len, labels))
    numbers = max(len("documents"), len(f"{most:,}"))
    room = max(8, COLUMNS - width - numbers - len("of tokens") - 6)
    lines = [f"{'tokens':>{width}}  {'':{room}}  {'documents':>{numbers}}  of tokens"]
    for label, each in zip(labels, bins, strict=True):
        bar = "#" * -(-each.documents * room // most)
        share = each.tokens / histogram.tokens if histogram.tokens else 0.0
        lines.append(f"{label:>{width}}  {bar:{room}}  {each.documents:>{numbers},}  {share:9.2%}")
    return lines


def _label(each: LengthBin) -> str:
    return f"{each.first:,}" if each.end == each.first + 1 else f"{each.first:,} - {each.end - 1:,}"


def draw_lengths(histogram: LengthHistogram, name: str, limits: Sequence[int], path: Path) -> None:
    """A PNG of documents and of tokens by length, on logarithmic axes, with the median and the limits asked for."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    bins = [each for each in histogram.bins(BARS) if each.first > 0]
    empty = histogram.number_of_documents - sum(each.documents for each in bins)
    if not bins:
        raise TrainyardError(f"{name} has empty documents alone; there is no length to draw on a logarithmic scale")
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    edges = [each.first for each in bins[:1]] + [each.end for each in bins]
    for axes, numbers, what, color in (
        (above, [each.documents for each in bins], "documents", "#08519c"),
        (below, [each.tokens for each in bins], "tokens in them", "#31a354"),
    ):
        axes.stairs(numbers, edges, fill=True, color=color)
        axes.set(xscale="log", yscale="log", ylabel=what, ylim=(0.7, None))
        # over more than three powers of ten numbers of six digits would overlap
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if bins[-1].end < 1e3 * bins[0].first else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        median = histogram.quantile(0.5)
        if median:
            axes.axvline(median, color="#d94801", label=f"median, {median:,} tokens")
        for number, limit in enumerate(limits):
            documents, tokens = histogram.longer_than(limit)
            share = documents / histogram.number_of_documents if axes is above else tokens / histogram.tokens
            axes.axvline(limit, color=f"C{number + 4}", linestyle="--", label=f"longer than {limit:,}: {share:.2%}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    without = f", {empty:,} of them empty (not drawn)" if empty else ""
    # a dollar sign would begin a formula
    title = f"{printable(name)}: {histogram.number_of_documents:,} documents{without}, {histogram.tokens:,} tokens"
    above.set_title(title.replace("$", r"\$"), fontsize=10)
    below.set_xlabel("length of a document (tokens)")
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format="png")
    write_atomically(path, content.getvalue())
