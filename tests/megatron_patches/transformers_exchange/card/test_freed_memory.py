"""What is freed is the machine's again."""

import subprocess
import sys

import pytest

FREED = """
import os, sys
from data_tools.benchmark.process_tree import memory_of
from megatron_patches.transformers_exchange.card.freed_memory import give_back_freed_memory
if "give back" in sys.argv:
    give_back_freed_memory()
bytearray(31_000_000)  # is freed at once: glibc takes blocks of this size from the heap from here on
before = memory_of(os.getpid())
blocks = [(bytearray(b"x") * 8_000_000, bytearray(b"x") * 100_000) for _ in range(20)]
kept = [small for _, small in blocks]
del blocks
print((memory_of(os.getpid()) - before) // 1_000_000)
"""


@pytest.mark.slow
def test_blocks_that_are_freed_are_given_back() -> None:
    held = [int(subprocess.check_output([sys.executable, "-c", FREED, word])) for word in ("give back", "keep")]
    assert held[0] < 20 < 100 < held[1]
