"""Seconds that `tools/export-hf` takes with its card for GPT-2's 124M: `python -m tests.export_time [TURNS]`.

Random checkpoints of weights alone, in bf16 and in fp32, are made first, with a tokenizer of 50,257 ids. Each turn
exports both, one after the other, as a user types it; two threads compute. Shown are medians of the whole process:
wall-clock seconds, and CPU seconds of user and system, which a busy machine changes less.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from data_tools.benchmark.process_tree import Ended, run
from megatron_patches.checkout import CHECKOUT
from tests.random_checkpoints import SMALL, make_tokenizer, random_run, save_random

PRECISIONS = ("bf16", "fp32")
LIMIT = 600.0
"""seconds, after which an export is killed"""


def main(turns: int) -> int:
    """Prints the table."""
    os.environ["OMP_NUM_THREADS"] = "2"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tokenizer(folder)
        made = {each: save_random(folder, random_run(folder, SMALL, each)) for each in PRECISIONS}
        measured = [{each: export(made[each], folder) for each in PRECISIONS} for _ in range(turns)]
    print(f"export of 124M with its card, median of {turns}      wall s   CPU s")
    for each in PRECISIONS:
        wall, cpu = median(turn[each].seconds for turn in measured), median(turn[each].cpu for turn in measured)
        print(f"{each:<47} {wall:8.1f} {cpu:7.1f}")
    return 0


def export(checkpoint: Path, folder: Path) -> Ended:
    """One export, removed after it."""
    target = folder / "export"
    command = [str(CHECKOUT / "tools/export-hf"), str(checkpoint), "--output", str(target)]
    ended = run(command, folder / "log", LIMIT, memory=False)
    if ended.code:
        raise RuntimeError(f"tools/export-hf failed:\n{ended.said}")
    shutil.rmtree(target)
    return ended


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
