"""The order of the tests: what takes minutes comes first, else one of two processes would do it alone at the end."""

CLUSTER = "tests/slurm/"
FIRST = (
    CLUSTER,
    "tests/test_every_switch.py",
    "tests/tools/commands/test_tflops.py",
    "tests/megatron_patches/",
    "tests/tools/",
)


def place(nodeid: str) -> int:
    """Where a test stands; those of one place stay in their order."""
    return next((number for number, beginning in enumerate(FIRST) if nodeid.startswith(beginning)), len(FIRST))
