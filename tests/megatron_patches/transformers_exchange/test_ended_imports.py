"""Imports that SIGTERM ends, and two of the same content at once: nothing unfinished is left, one has the name."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.checkout import CHECKOUT
from tests.megatron_patches.transformers_exchange.folders import write_run
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

pytestmark = pytest.mark.slow

RUN = "tr900e-28K-ended"


def contents(shelf: Path) -> list[str]:
    return sorted(each.name for each in shelf.iterdir()) if shelf.exists() else []


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.mark.parametrize("by", ["tools/import-hf", "slurm/launch"])
def test_sigterm_leaves_nothing(by: str, transformers_folders: Path, small_data: SmallData, tmp_path: Path) -> None:
    folder = transformers_folders / "llama"
    run = write_run(tmp_path / "tr900-tests", RUN, small_data, folder)
    shelf = tmp_path / "runs" / RUN / ("imports" if by == "slurm/launch" else "checkpoints")
    places = {f"TRAINYARD_{name}": str(tmp_path / name.lower()) for name in ("RUNS", "CACHE", "DATA")}
    python = {"TRAINYARD_PYTHON": sys.executable, "TRAINYARD_VENV": sys.prefix}
    words = [str(run), f"--init_from={folder}"] if by == "slurm/launch" else [str(folder), str(run)]
    process = subprocess.Popen(
        [CHECKOUT / by, *words], env={**os.environ, **places, **python}, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: contents(shelf) != [] or process.poll() is not None, "an import that begins")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGTERM if by == "slurm/launch" else 128 + signal.SIGTERM), said
    wait_until(lambda: contents(shelf) == [], "a folder that is removed")


def import_beside_another(place: Path, folders: Path, data: SmallData) -> dict[str, Any]:
    """A launch during whose card another one puts its import of the same content there."""
    from megatron_patches.launch.init_from.folder_import import with_imported_weights
    from megatron_patches.launch.init_from.resolution import find_starting_point
    from megatron_patches.run.reading import load_run
    from megatron_patches.transformers_exchange import importing
    from megatron_patches.transformers_exchange.import_plan import open_data

    os.environ |= {f"TRAINYARD_{name}": str(place / name.lower()) for name in ("RUNS", "CACHE", "DATA")}
    config = load_run(write_run(place / "tr900-tests", RUN, data, folders / "llama"))
    start = find_starting_point(str(folders / "llama"), config, open_data(config))
    others = []
    told = io.StringIO()

    def prove_slowly(*given: Any, **named: Any) -> Any:
        patch.undo()
        others.append(with_imported_weights(start, config))
        return importing.prove(*given, **named)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(told):
        patch.setattr(importing, "prove", prove_slowly)
        mine = with_imported_weights(start, config)
        third = with_imported_weights(start, config)
    points = [mine, *others, third]
    return {
        "weights": [(each.weights.id, each.weights.folder) for each in points],
        "whose": [each.weights.whose for each in points],
        "left": contents(place / "runs" / RUN / "imports"),
        "told": told.getvalue(),
    }


def test_the_later_of_two_takes_what_the_other_finished(
    transformers_folders: Path, small_data: SmallData, tmp_path: Path
) -> None:
    found = run_on_ranks(import_beside_another, 1, tmp_path, transformers_folders, small_data)[0]
    assert len(found["weights"]) == 3 and len(set(found["weights"])) == 1
    (_, folder), *_ = found["weights"]
    assert found["left"] == [Path(folder).name]
    assert found["told"].count("importing ") == 2  # the third finds it finished
    assert set(found["whose"]) == {str(transformers_folders / "llama")}
