"""`tools/dataset merge` and `split`: several datasets to one, and one to several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from megatron_patches.sizes import counted

OVERWRITE = typer.Option("--overwrite", help="Replace datasets of the same name.")
AS_JSON = typer.Option("--json", help="For other programs; numbers are exact.")


def prefix_of(path: Path) -> Path:
    """A dataset's prefix, for which the name of its `.bin` or `.idx` may stand, as a shell's pattern gives it."""
    return path.with_suffix("") if path.suffix in (".bin", ".idx") and path.is_file() else path


def merge(
    output: Annotated[Path, typer.Argument(help="Prefix of the new dataset: PREFIX.bin, .idx, .manifest.json.")],
    prefixes: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREFIX",
            help="The datasets without .bin, in this order. The name of an .idx means its dataset: part-*.idx.",
        ),
    ],
    overwrite: Annotated[bool, OVERWRITE] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Make one dataset of several, which have one tokenizer; documents keep their order and their sequences.

    Shards of a corpus that were tokenized one by one become, byte for byte, what one tools/preprocess makes of all.

    Example: tools/dataset merge data/mine/text data/mine/part-*.idx
    """
    from data_tools.datasets.regrouping.merge import merge_datasets
    from tools.terminal import tell, tell_json

    with _progress_bar() as show:
        manifest, facts = merge_datasets([prefix_of(each) for each in prefixes], output, overwrite, show)
    if as_json:
        tell_json({"prefix": str(output), "id": manifest.id, **facts.model_dump()})
        return
    tell(
        f"{output}: {counted(facts.documents, 'document')}, {counted(facts.tokens, 'token')} of {facts.dtype} from "
        f"{counted(len(prefixes), 'dataset')}, id {manifest.id[:12]}"
    )


def split(
    prefix: Annotated[Path, typer.Argument(help="The dataset's path without .bin or .idx.", callback=prefix_of)],
    output: Annotated[Path, typer.Argument(help="The shards are OUTPUT-00000, OUTPUT-00001, ...")],
    tokens: Annotated[
        str, typer.Option(metavar="N", help="Shards of about so many tokens, such as 100e6; the last has what is left.")
    ] = "",
    documents: Annotated[str, typer.Option(metavar="N", help="Shards of so many documents; the last has fewer.")] = "",
    shards: Annotated[str, typer.Option(metavar="N", help="So many shards of about as many tokens each.")] = "",
    overwrite: Annotated[bool, OVERWRITE] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Cut a dataset into shards of whole documents, each a dataset with a manifest; `merge` undoes it.

    Example: tools/dataset split data/mine/text data/mine/part --tokens 100e6
    """
    from data_tools.datasets.regrouping.shards import Cut, split_dataset
    from megatron_patches.errors import TrainyardError
    from tools.tables import print_table
    from tools.terminal import tell_json

    asked = {"tokens": tokens, "documents": documents, "shards": shards}
    given = [unit for unit, number in asked.items() if number]
    if len(given) != 1:
        raise TrainyardError("give one of --tokens N, --documents N and --shards N: how the dataset is cut")
    cut = Cut(given[0], whole_number(asked[given[0]], f"--{given[0]}"))
    with _progress_bar() as show:
        made = split_dataset(prefix, output, cut, overwrite, show)
    if as_json:
        tell_json(
            [
                {"prefix": str(each.prefix), "id": each.manifest.id, **each.facts.model_dump(exclude={"sources"})}
                for each in made
            ]
        )
        return
    rows = [
        [str(each.prefix), f"{each.facts.documents:,}", f"{each.facts.tokens:,}", each.manifest.id[:12]]
        for each in made
    ]
    print_table(["shard", "documents", "tokens", "id"], rows, numbers={1, 2})


def whole_number(text: str, option: str) -> int:
    """A count of 1 or more that people write as 100000000, 100_000_000 or 100e6.

    Raises:
        TrainyardError: it is none.
    """
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import shortened

    try:
        number = int(text) if text.replace("_", "").isdecimal() else float(text)
    except ValueError:
        number = 0
    if not 1 <= number < 2**63 or number != int(number):
        raise TrainyardError(
            f"{option} takes a whole number of 1 or more, such as 1000 or 100e6, not {shortened(text, 40)}"
        )
    return int(number)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; called with the bytes that are done, and all of them."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("copying", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
