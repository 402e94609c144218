"""How fast the inventory answers on many checkpoints: a rebuild, and whole commands from the shell."""

import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from pydantic import JsonValue

from megatron_patches.artefacts.descent import descent_of_launch
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.manifest import MANIFEST, FileRecord, build_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.hardware.machines import cpu_name
from megatron_patches.sizes import counted
from tools.tables import print_table
from tools.terminal import tell

_ROUNDS = 7
_FILES = 4
"""of each checkpoint: what a manifest lists for two ranks"""


def bench(folder: Path, checkpoints: int, runs: int) -> None:
    """Prints all figures; everything that is made lies in a temporary folder and is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        tell(f"{cpu_name()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}")
        names = _make(root / "runs", checkpoints, runs)
        environment = os.environ | {
            "TRAINYARD_RUNS": str(root / "runs"),
            "TRAINYARD_DATA": str(root / "data"),
            "TRAINYARD_CACHE": str(root / "cache"),
            "TRAINYARD_PYTHON": sys.executable,
        }
        tell(
            f"{counted(checkpoints, 'checkpoint')} in {counted(runs, 'run')}: "
            f"{_run(['rebuild'], environment)[0].strip()}"
        )
        middle, step = names[len(names) // 2], checkpoints // runs // 2
        commands = [
            ["find", middle, "--json"],
            ["find", "--run", middle, "--steps", f"{step}:", "--metric", "validation_loss<3"],
            ["find", "--metric", "validation_loss<2.001"],
            ["where", f"{middle}@{step}"],
            ["show", f"{middle}@{step}"],
            ["list", "tr9", "--all"],
            ["--help"],
        ]
        rows = [_measured(command, environment) for command in commands]
        print_table(["tools/inventory", "median", "least", "most"], rows, numbers={1, 2, 3})


def _make(root: Path, checkpoints: int, runs: int) -> list[str]:
    """Manifests without the files that they list, which neither a rebuild nor a search reads."""
    draw = random.Random(0)
    names = [f"tr900a-28K-bench-{number:04d}" for number in range(runs)]
    for number in range(checkpoints):
        name, step = names[number % runs], number // runs + 1
        files = [
            FileRecord(path=f"weights-{rank:05d}.safetensors", size=2000, sha256=f"{draw.getrandbits(256):064x}")
            for rank in range(_FILES)
        ]
        layout: dict[str, JsonValue] = {"tensor": 2, "pipeline": 1, "data": 1, "zero_stage": 1}
        facts: dict[str, JsonValue] = {
            "run": name, "launch": "0001", "step": step, "samples": 8 * step, "tokens": 128 * step, "layout": layout,
            "validation_loss": 2 + draw.random() * 2,
            **descent_of_launch(f"{number % runs:064x}", 1, 0, None),
        }  # fmt: skip
        folder = RunFolder(root / name).checkpoints / checkpoint_name(step)
        folder.mkdir(parents=True)
        manifest = build_manifest("checkpoint", files, facts, (), "tools/inventory bench")
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    return names


def _measured(command: list[str], environment: dict[str, str]) -> list[str]:
    seconds = [_run(command, environment)[1] for _ in range(_ROUNDS)]
    return [" ".join(command), *(f"{each:.2f} s" for each in (median(seconds), min(seconds), max(seconds)))]


def _run(command: list[str], environment: dict[str, str]) -> tuple[str, float]:
    started = time.perf_counter()
    whole = [str(CHECKOUT / "tools" / "inventory"), *command]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=True)
    return done.stdout, time.perf_counter() - started
