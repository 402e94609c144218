"""How many tokens a second a loader gives straight from a text, without a model that takes them."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from data_tools.benchmark.comparison import Measured
from data_tools.benchmark.process_tree import Ended, run
from megatron_patches.errors import TrainyardError
from megatron_patches.hardware.machines import hardware_named, peak_of

LENGTH = 2048
"""tokens of a sample"""
GPU, SHARE = "H100", 0.4
"""what is fed: a GPU, and the share of its bf16 peak that training gets out of it"""
MODELS = {"125M": 125e6, "1.3B": 1.3e9, "13B": 13e9}
"""parameters; a token takes 6 operations for each"""
_LIMIT = 1800.0
"""seconds that an epoch may take"""


@dataclass(frozen=True)
class Fed:
    """What a loader gave."""

    measured: Measured
    tokens: int
    """of the epoch that was read"""
    cores: int

    @property
    def tokens_per_second(self) -> float:
        """Beyond the start of the processes."""
        return self.tokens / median(self.measured.work)

    def gpus(self, parameters: float) -> float:
        """How many GPUs it keeps busy with a model of this many parameters."""
        peak = peak_of(hardware_named(GPU), "bf16")
        assert peak is not None
        return self.tokens_per_second * 6 * parameters / (SHARE * peak * 1e12)


def measure_feeding(
    text: Path, tokenizer: Path, cores: int, rounds: int, folder: Path, on_turn: Callable[[str], None]
) -> Fed:
    """Reads an epoch of the text as training does, all processes on `workers` cores, with one that tokenizes for each.

    As in a comparison, memory is looked at in a run of its own, and each round also reads the first document alone.

    Raises:
        TrainyardError: reading failed, or took too long.
    """
    measured = Measured("straight from text", f"{cores} cores, one process that tokenizes on each")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        one, log = Path(place, "one.jsonl"), Path(place, "log")
        with text.open("rb") as lines:
            one.write_bytes(next(lines, b""))

        def read(what: Path, memory: bool = False) -> Ended:
            words = ("--workers", str(cores), "--cores", str(cores), "--length", str(LENGTH))
            command = [sys.executable, "-m", "data_tools.benchmark.drain", str(what), str(tokenizer), *words]
            ended = run(command, log, _LIMIT, memory)
            if ended.code:
                raise TrainyardError(f"reading failed with exit code {ended.code}: {ended.said}")
            return ended

        on_turn("straight from text: memory")
        ended = read(text, memory=True)
        measured.memory = ended.memory
        samples = int(ended.said.splitlines()[-1])
        for number in range(rounds):
            on_turn(f"straight from text: round {number + 1} of {rounds}")
            measured.start.append(read(one).seconds)
            ended = read(text)
            measured.whole.append(ended.seconds)
            measured.cpu.append(ended.cpu)
    return Fed(measured, samples * LENGTH, cores)
