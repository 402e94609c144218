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


def readable_size(size: int) -> str:
    """Bytes in three digits and a decimal unit: 1316605952 is 1.32 GB."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= 0.9995 * scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
