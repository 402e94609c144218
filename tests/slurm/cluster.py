"""A real SLURM cluster for tests: starts `cluster.sh`, and runs commands on its login host."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NEEDED_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "unshare", "nsenter", "ip")
START_SECONDS = 60
COMMAND_SECONDS = 60
NAMESPACES = ("--net", "--uts", "--mount", "--pid")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}


def reason_not_to_start() -> str | None:
    """Why this machine cannot hold the cluster, with the remedy; None where it can."""
    missing = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine: `make slurm-packages` installs SLURM"
    if os.geteuid() != 0:
        return "the cluster's nodes are namespaces, which only root can make: run as root after `make slurm-packages`"
    return None


def wait_until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Returns once the condition holds.

    Raises:
        TimeoutError: it did not within the time; the message names what was awaited.
    """
    end = time.monotonic() + seconds
    pause = 0.05
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(pause)
        pause = min(0.5, pause * 1.1)  # asking starts three processes, and jobs that take minutes need the cores


def environment_without_settings() -> dict[str, str]:
    """The tests' environment without what SLURM, Trainyard and an active virtual environment put there."""
    return {k: v for k, v in os.environ.items() if not re.match(r"SLURM|SBATCH|SRUN|TRAINYARD|VIRTUAL_ENV", k)}


class Cluster:
    """Nodes `node1`, `node2` ... with 64 CPUs and 8 GPUs each (pretended), and the login host `ctl`.

    Commands and jobs see this machine's files and have their host's name and network. Of the tests' environment they
    inherit no settings of SLURM and Trainyard; TRAINYARD_VENV is the Python environment that runs the tests.
    """

    def __init__(self, directory: Path, nodes: int = 2) -> None:
        self.directory = directory
        self._logs: dict[int, Path] = {}
        script = str(Path(__file__).with_name("cluster.sh"))
        enter = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        self._process = subprocess.Popen(
            [*enter, "bash", script, str(directory), str(nodes)],
            stdin=subprocess.PIPE,  # its end, also by a kill of the tests, ends the cluster
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_until(self._is_ready, START_SECONDS, f"the cluster's start; its logs are in {directory}/log")
        except BaseException:
            self.stop()
            raise
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._login = children.read_text().split()[0]

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            assert self._process.stderr is not None
            raise RuntimeError(f"the cluster did not start: {self._process.stderr.read()}")
        return (self.directory / "ready").exists()

    def stop(self) -> None:
        """Ends every daemon and every job."""
        self._process.kill()  # the kernel then kills all that lives in its namespaces
        self._process.communicate()

    def run(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the login host, at most 60 s, and returns it with what it printed.

        Args:
            env: additions to the environment.
            check: whether a failing command raises.

        Raises:
            RuntimeError: the command failed; the message holds what it printed.
        """
        enter = ["nsenter", f"--target={self._login}", *NAMESPACES, f"--wd={cwd or Path.cwd()}"]
        done = subprocess.run(
            [*enter, "timeout", str(COMMAND_SECONDS), *command],
            env=self._environment(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def _environment(self, additions: Mapping[str, str]) -> dict[str, str]:
        own = {"SLURM_CONF": str(self.directory / "etc/slurm.conf"), "TRAINYARD_VENV": sys.prefix}
        return {**environment_without_settings(), **own, **additions}

    def sbatch(
        self,
        script: str | Path,
        *args: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> int:
        """Submits a script with its arguments from the folder cwd; returns the job's id.

        Args:
            env: additions to the environment.
            options: of sbatch itself, `--nodes=1` and the like.
        """
        submitted = self.run("sbatch", "--parsable", *options, str(script), *args, cwd=cwd, env=env)
        return int(submitted.stdout.split(";")[0])

    def state(self, job: int) -> tuple[str, int]:
        """State and exit code of a job by now; the code of one that a signal ended is 128 + its number."""
        described = self.describe(job)
        code, number = (int(part) for part in described["ExitCode"].split(":"))
        return described["JobState"], 128 + number if number else code

    def describe(self, job: int) -> dict[str, str]:
        """What `scontrol show job` tells of a job, by its names."""
        fields = self.run("scontrol", "--oneliner", "show", "job", str(job)).stdout.split()
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def wait(self, job: int, timeout: float = 60) -> tuple[str, int]:
        """Waits for a job's end; returns its state (COMPLETED, FAILED, CANCELLED ...) and exit code.

        Raises:
            TimeoutError: the job has not ended after timeout seconds; the message holds its log.
        """
        try:
            wait_until(lambda: self.state(job)[0] in ENDED, timeout, f"the end of job {job}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its log:\n{self.log(job)}") from None
        return self.state(job)

    def wait_for_log(self, job: int, text: str, timeout: float = 60) -> None:
        """Waits until a job's log holds a text.

        Raises:
            TimeoutError: it does not after timeout seconds; the message holds the log.
        """
        try:
            wait_until(lambda: text in self.log(job), timeout, f"{text!r} in the log of job {job}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{self.log(job)}") from None

    def cancel(self, job: int, *options: str) -> None:
        """`scancel`, with options such as `--batch --signal=USR1`."""
        self.run("scancel", *options, str(job))

    def cut(self, node: str) -> None:
        """Take a node's power: all its processes are gone at once, and the controller is told so."""
        self.run("pkill", "--signal=KILL", "--full", f"^unshare .* init {node} ")
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=cut")

    def log(self, job: int) -> str:
        """What a job has printed by now."""
        if job not in self._logs:
            self._logs[job] = Path(self.describe(job)["StdOut"])
        return self._logs[job].read_text() if self._logs[job].exists() else ""
