"""How fast a sync to a local folder is, beside cp and sha256 of the same files, and a second sync of many files."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import MANIFEST, FileRecord, Manifest, build_manifest, write_manifest
from megatron_patches.artefacts.storage.file import FolderStore
from megatron_patches.artefacts.storage.transfer import Options, send_artefact
from megatron_patches.atomic_files import HashingWriter
from megatron_patches.hardware.machines import cpu_name
from megatron_patches.sizes import counted, readable
from tools.tables import print_table

_LARGE_FILES = 8
_ROUNDS = 7


def bench(folder: Path, size: int, small_files: int) -> None:
    """Prints both measurements; everything that is made lies in a temporary folder and is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        print(f"{cpu_name()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}")
        source = root / "source"
        manifest = _make(source, _LARGE_FILES, size // _LARGE_FILES)
        rows, ratios = [], []
        sides = {
            "plain": lambda: _copy_and_hash(source, root / "plain"),
            "synced": lambda: _sync(root / "synced", manifest, source),
        }
        for number in range(_ROUNDS + 1):
            took = {}
            for side in list(sides) if number % 2 else reversed(sides):
                took[side] = _seconds(sides[side])
                shutil.rmtree(root / side)
                os.sync()
            if number:  # the first round also fills caches, and is left out
                ratios.append(took["plain"] / took["synced"])
                rows.append([str(number), *(_speed(size, took[side]) for side in sides), f"{ratios[-1]:.0%}"])
        print_table(["round", "cp, then sha256", "sync, verified", "sync against cp"], rows, numbers={1, 2, 3})
        print(
            f"median {median(ratios):.0%} of cp + sha256 over {readable(size)}, "
            f"from {min(ratios):.0%} to {max(ratios):.0%}; sides took turns in going first"
        )
        shutil.rmtree(source)
        _many(root, small_files)


def _many(root: Path, number: int) -> None:
    source = root / "many"
    manifest = _make(source, number, 100)
    first = _seconds(lambda: _sync(root / "copy", manifest, source))
    second = _seconds(lambda: _sync(root / "copy", manifest, source))
    print(f"{counted(number, 'file')}: first sync {first:.2f} s, second sync {second:.2f} s, nothing moved")


def _make(folder: Path, number: int, size: int) -> Manifest:
    folder.mkdir()
    files = []
    block = os.urandom(1 << 20)
    for index in range(number):
        with HashingWriter(folder / f"weights-{index:05d}.bin") as file:
            file.write(index.to_bytes(8, "big"))
            while file.size < size:
                file.write(block[: size - file.size])
        files.append(FileRecord(path=file.path.name, size=file.size, sha256=file.sha256))
    manifest = build_manifest("checkpoint", files, {"step": 1}, command="tools/sync-to-hub bench")
    write_manifest(folder / MANIFEST, manifest)
    return manifest


def _copy_and_hash(source: Path, target: Path) -> None:
    """What it is measured against: one cp, then the sha256 of each copied file, by the same library."""
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in sorted(target.iterdir()):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    os.sync()


def _sync(target: Path, manifest: Manifest, source: Path) -> None:
    send_artefact(FolderStore(Location("file", str(target))), "checkpoint", manifest, source, Options(parallel=2))


def _seconds(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _speed(size: int, seconds: float) -> str:
    return f"{readable(int(size / seconds))}/s"
