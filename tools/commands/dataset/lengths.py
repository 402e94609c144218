"""`tools/dataset lengths`: how long the documents of a dataset are."""

from pathlib import Path
from typing import Annotated

import typer

from tools.commands.dataset.shards import prefix_of, whole_number


def lengths(
    prefix: Annotated[Path, typer.Argument(help="The dataset's path without .bin or .idx.", callback=prefix_of)],
    longer_than: Annotated[
        str,
        typer.Option(
            metavar="N,N", help="Also count the documents of more tokens than each of these, such as 1024,2048."
        ),
    ] = "",
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the histogram into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs; numbers are exact.")] = False,
) -> None:
    """Show how many tokens the documents have: quantiles, and a histogram with logarithmic bins.

    Example: tools/dataset lengths data/mine/text --longer-than 2048 --picture lengths.png
    """
    from data_tools.datasets.lengths import read_histogram
    from megatron_patches.errors import TrainyardError
    from tools.commands.dataset.length_views import describe_lengths, draw_lengths, print_lengths
    from tools.terminal import remark, tell_json

    if picture is not None and picture.suffix.lower() != ".png":
        raise TrainyardError(f"--picture {picture} is no .png; pictures are made in this format alone")
    limits = [whole_number(limit.strip(), "--longer-than") for limit in longer_than.split(",") if longer_than]
    histogram = read_histogram(prefix)
    if picture is not None:
        draw_lengths(histogram, prefix.name, limits, picture)
    if as_json:
        tell_json({"prefix": str(prefix), **describe_lengths(histogram, limits)})
    else:
        print_lengths(histogram, str(prefix), limits)
    if picture is not None:
        remark(f"drawn: {picture}")
