"""What exporting a model of 1.3 billion parameters holds in memory: `python -m tests.torture.large_export`.

A random bf16 checkpoint is exported by a process, with a card by blocks. Counted are the pages that this process and
its children alone hold or share in memory, each once (Pss_Anon and Pss_Shmem of the kernel's smaps_rollup, every 20
ms). Files that are mapped, such as libraries, and the cache of files are not: the kernel may drop both. The most may be
1.5 times the largest layer in fp32, and 1 GB for libraries, logits and attention. It needs 10 GB on the disk of
temporary files, and some ten minutes on two cores.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from math import prod
from pathlib import Path

from data_tools.benchmark.process_tree import run
from megatron_patches.checkout import CHECKOUT
from megatron_patches.run.config import RunConfig
from tests.random_checkpoints import LARGE, MIDDLE, SMALL, make_tokenizer, random_run, save_random

SIZES = {"124M": SMALL, "350M": MIDDLE, "1.3B": LARGE}
LIMIT = 3600.0
"""seconds, after which the export is killed"""


def main() -> int:
    """The command line; 1 where the export took more than it may."""
    parser = argparse.ArgumentParser("python -m tests.torture.large_export", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1.3B", help="of the model. Example: --size 350M")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tokenizer(folder)
        config = random_run(folder, SIZES[asked.size], "bf16")
        checkpoint, log = save_random(folder, config), folder / "log"
        command = [str(CHECKOUT / "tools/export-hf"), str(checkpoint), "--output", str(folder / "export")]
        ended = run([*command, "--card-by-block"], log, LIMIT, memory=True, mapped=False)
        shutil.rmtree(folder / "export", ignore_errors=True)
    if ended.code:
        print(ended.said, file=sys.stderr)
        return 1
    largest = largest_layer(config)
    allowed = 1.5 * largest + 1e9
    print(
        f"export of {asked.size} in bf16 with a card by blocks: {ended.memory / 1e9:.2f} GB at most, "
        f"{allowed / 1e9:.2f} GB allowed (largest layer in fp32: {largest / 1e9:.2f} GB); {ended.seconds:.0f} s, "
        f"CPU {ended.cpu:.0f} s"
    )
    return int(ended.memory > allowed)


def largest_layer(config: RunConfig) -> int:
    """Bytes in fp32 of the layer with the most parameters."""
    sizes: Counter[str] = Counter()
    for row in config.parameters:
        sizes[_layer(row.name)] += 4 * prod(row.shape)
    return max(sizes.values())


def _layer(name: str) -> str:
    """`layers.3` of a block's parameter, else its first word."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "layers" else words[0]


if __name__ == "__main__":
    sys.exit(main())
