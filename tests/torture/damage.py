"""What befalls files of a checkpoint that lies on a disk."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

Damage = Callable[[Path, Random], None]


def flip_a_bit(folder: Path, draw: Random) -> None:
    """One bit of any file, the manifest's id among them."""
    path = _any_file(folder, draw)
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(folder: Path, draw: Random) -> None:
    path = _any_file(folder, draw)
    os.truncate(path, draw.randrange(path.stat().st_size))


def remove(folder: Path, draw: Random) -> None:
    _any_file(folder, draw).unlink()


def swap_two(folder: Path, draw: Random) -> None:
    """Two files of the checkpoint exchange their names."""
    first, second = draw.sample(sorted(folder.glob("*.safetensors")), 2)
    aside = folder / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def take_from_another(folder: Path, draw: Random) -> None:
    """A file of the same name from another step, as a careless copy would leave it."""
    others = [other for other in folder.parent.glob("step-??????????") if other != folder]
    path = draw.choice(sorted(folder.glob("*.safetensors")))
    source = draw.choice(others) / path.name if others else None
    path.write_bytes(source.read_bytes() if source is not None and source.exists() else b"")


def append(folder: Path, draw: Random) -> None:
    with _any_file(folder, draw).open("ab") as file:
        file.write(b"\0" * draw.randint(1, 9))


DAMAGES: dict[str, Damage] = {
    "flipped bit": flip_a_bit,
    "truncated file": truncate,
    "missing file": remove,
    "swapped files": swap_two,
    "file of another step": take_from_another,
    "longer file": append,
}


def _any_file(folder: Path, draw: Random) -> Path:
    """A file that belongs to this checkpoint alone: its marks do not belong to it, and its tokenizer's files are those
    of all others too, and mended by the next launch."""
    marks = ("pinned.json", "verified.json", "damaged.json")
    return draw.choice(sorted(path for path in folder.iterdir() if path.is_file() and path.name not in marks))
