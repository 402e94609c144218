"""The long form of `tests.megatron_patches.engine.test_layouts`: every architecture and optimizer on every layout.

`python -m tests.torture.layouts`
"""

import sys
import tempfile
from pathlib import Path

from tests.megatron_patches.engine.test_layouts import ALL, ALL_LAYOUTS, ONE, different, train
from tests.small_training import make_small_data


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        data = make_small_data(Path(folder) / "data")
        runs = Path(folder) / "runs"
        (expected,) = train(data, runs, 1, ONE, ALL)
        failed = False
        for layout, (ranks, arguments) in ALL_LAYOUTS.items():
            found = different(train(data, runs, ranks, arguments, ALL), expected)
            failed = failed or bool(found)
            print(f"{layout}: {found or 'the same'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
