"""Tables on a terminal, and the same as plain lines where the output is no terminal."""

from collections.abc import Iterable, Sequence

_UNLIMITED = 4000


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> None:
    """Prints columns aligned, as wide as they are: a name or address that is cut or broken cannot be copied.

    Args:
        numbers: columns that are aligned at the right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    right = set(numbers)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(head):
        table.add_column(title, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=_UNLIMITED)
    with console.capture() as printed:
        console.print(table)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))
