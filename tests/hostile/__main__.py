"""The long form: `python -m tests.hostile --times 20`, every test with many times its cases, new ones each time."""

import argparse
import os
import sys
from pathlib import Path

import pytest

ALSO = ("blocks", "entries", "shards")
"""of the tests of reading, those whose cases grow with the others"""


def main() -> int:
    """Runs the suite; arguments that it does not know are pytest's, such as `-k manifest`."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="how many times the cases of `make test`: 50")
    known, others = parser.parse_known_args()
    os.environ |= {"HYPOTHESIS_PROFILE": "default", "HOSTILE_TIMES": str(known.times)}
    tests = Path(__file__).parents[1]
    paths = [tests / "hostile", *(tests / "data_tools" / "reading" / f"test_{name}.py" for name in ALSO)]
    return pytest.main([*map(str, paths), "-q", "-n", "2", "--tb=short", *others])


if __name__ == "__main__":
    sys.exit(main())
