"""How busy this node's GPUs are and what they hold, asked of NVIDIA's driver beside training. Torch-free.

`nvidia-smi` is a process of its own that reads the driver's counters: no stream waits for it, and neither does a step.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread

from slurm.parent import command_ending_with_it

SECONDS_BETWEEN_SAMPLES = 15.0
LONGEST_ANSWER = 10.0
"""seconds; a driver that is in trouble may never answer"""
FIELDS = {
    "index": "index",
    "utilization.gpu": "utilisation",
    "memory.used": "memory_mib",
    "memory.total": "memory_total_mib",
    "power.draw": "watts",
    "temperature.gpu": "celsius",
}
"""nvidia-smi's name of a number, and what it is called here; utilisation is percent of the last second or less"""
COMMAND = ("nvidia-smi", f"--query-gpu=uuid,{','.join(FIELDS)}", "--format=csv,noheader,nounits")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """Numbers or ids of the GPUs that this node's processes may see; None where all."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else [each.strip() for each in named.split(",") if each.strip()]


def read_samples(visible: Sequence[str] | None, command: Sequence[str] = COMMAND) -> list[dict[str, float]]:
    """One sample of each visible GPU; a number that the driver does not tell is left out.

    Raises:
        OSError: there is no nvidia-smi, or it failed.
        subprocess.TimeoutExpired: it did not answer.
    """
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    answer = subprocess.run(
        command_ending_with_it(command), capture_output=True, text=True, errors="replace", timeout=LONGEST_ANSWER,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if answer.returncode:
        said = (answer.stderr or answer.stdout).strip().splitlines()[:1]
        raise OSError(f"{command[0]} ended with code {answer.returncode}{': ' + said[0] if said else ''}")
    samples = []
    for line in answer.stdout.splitlines():
        uuid, *values = [part.strip() for part in line.split(",")]
        if len(values) == len(FIELDS) and (visible is None or _is_visible(uuid, values[0], visible)):
            told = zip(FIELDS.values(), map(_number, values), strict=True)
            samples.append({name: value for name, value in told if value is not None})
    return samples


def _is_visible(uuid: str, index: str, visible: Sequence[str]) -> bool:
    return any(name == index or (not name.isdecimal() and uuid.startswith(name)) for name in visible)


def _number(text: str) -> float | None:
    """`[N/A]` is none."""
    try:
        return float(text)
    except ValueError:
        return None


class GpuSampler:
    """A thread that samples until it is stopped; the first failure ends it, and is told once."""

    def __init__(
        self,
        tell: Callable[[list[dict[str, float]]], None],
        complain: Callable[[str], None],
        read: Callable[[], list[dict[str, float]]] = lambda: read_samples(visible_gpus()),
        every: float = SECONDS_BETWEEN_SAMPLES,
    ) -> None:
        self._tell, self._complain, self._read, self._every = tell, complain, read, every
        self._stopped = Event()
        self._thread = Thread(target=self._sample, name="gpu samples", daemon=True)

    def start(self) -> None:
        """Begin; the first sample is taken once the first steps have been."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more; one that is being taken is not waited for."""
        self._stopped.set()

    def _sample(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                samples = self._read()
            except (OSError, subprocess.SubprocessError) as error:
                if not self._stopped.is_set():
                    self._complain(f"GPUs are not sampled any more in this launch: {error}")
                return
            if not samples:  # of parts of GPUs (MIG) nvidia-smi tells other things
                self._complain("GPUs are not sampled in this launch: nvidia-smi lists none that the run may see")
                return
            if not self._stopped.is_set():
                self._tell(samples)
