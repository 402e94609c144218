"""A small checkout for tests of `slurm/launch`: the real `slurm/`, one run, and a stand-in for the engine."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name("stand_in")
RUN = "train/tr0-demo/tr0a-demo.yaml"


class SmallCheckout:
    """Folder with `slurm/`, `train/tr0-demo/tr0a-demo.slurm`, the stand-in `megatron_patches/` and a `.venv`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(CHECKOUT / "slurm", root / "slurm")
        shutil.copytree(STAND_IN, root, dirs_exist_ok=True)
        self.launch = root / "slurm/launch"
        self.script = root / RUN.replace(".yaml", ".slurm")
        self.script.parent.mkdir(parents=True)
        ending = (CHECKOUT / "slurm/script_ending.sh").read_text()
        self.script.write_text(f"#!/bin/bash\n#SBATCH --nodes=2 --output=%x-%j.log\nrun={RUN}\n{ending}")
        self.add_environment(root / ".venv", "checkout")

    def add_environment(self, folder: Path, name: str) -> None:
        """A virtual environment whose python says its name in STAND_IN_PYTHON, and is else the one of the tests."""
        python = folder / "bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nSTAND_IN_PYTHON={name} exec {sys.executable} "$@"\n')
        python.chmod(0o755)

    def add_site(self, name: str, text: str) -> None:
        (self.root / f"slurm/sites/{name}.sh").write_text(text)

    @property
    def launch_directory(self) -> Path:
        return self.root / "runs/launch"

    def planned(self) -> list[str]:
        """The arguments that the plan was asked with, less the last: who is to own the launch."""
        *arguments, option, owner = self._read("plan")
        assert option == "--owner" and json.loads(owner)["pid"]
        return arguments

    def node(self, rank: int = 0) -> dict[str, Any]:
        """What a node was started with."""
        return self._read(f"node-{rank}")

    def _read(self, name: str) -> Any:
        return json.loads((self.launch_directory / f"{name}.json").read_text())
