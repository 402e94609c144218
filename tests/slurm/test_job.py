"""What `slurm/launch` makes of a job: it works, or one line has the remedy; and where its processes meet."""

import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import job as slurm_job
from slurm.job import JobError, current_job, free_local_port, meeting_port
from tests.slurm.checkout import RUN, SmallCheckout
from tests.slurm.cluster import environment_without_settings

WHOLE = {"SLURM_JOB_ID": "77", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "n1"}


def stand_in(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """`scontrol` that knows one host, this machine, and `srun` that starts a task here."""
    stand_in(tmp_path / "bin", "scontrol", "echo 127.0.0.1")
    stand_in(tmp_path / "bin", "srun", 'while [ "${1#-}" != "$1" ]; do shift; done; SLURM_NODEID=${NODEID-0} exec "$@"')
    return tmp_path / "bin"


def launch(checkout: SmallCheckout, path: Path | str, **variables: str) -> tuple[int, str]:
    environment = environment_without_settings() | {"PATH": f"{path}:{os.environ['PATH']}"} | variables
    command = [checkout.launch, RUN]
    done = subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "usage:" not in done.stderr
    return done.returncode, done.stderr


def test_a_whole_job(checkout: SmallCheckout, commands: Path) -> None:
    code, said = launch(checkout, commands, **WHOLE, SLURM_GPUS_ON_NODE="2")
    assert code == 0, said
    assert checkout.planned() == [RUN, "--nodes", "1", "--gpus-per-node", "2"]


def test_older_names_of_the_variables(checkout: SmallCheckout, commands: Path) -> None:
    code, said = launch(checkout, commands, SLURM_JOB_ID="77", SLURM_JOB_NUM_NODES="1", SLURM_NODELIST="n1")
    assert code == 0, said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"SLURM_NNODES": None}, "SLURM_NNODES is not set"),
        ({"SLURM_NNODES": ""}, "SLURM_NNODES is not set"),
        ({"SLURM_NNODES": "abc"}, "SLURM_NNODES='abc' is not a whole number"),
        ({"SLURM_NNODES": "0"}, "SLURM_NNODES='0' is not a whole number from 1"),
        ({"SLURM_NNODES": "3"}, "gave the job 3 nodes, and its list of hosts has 1 (127.0.0.1)"),
        ({"SLURM_JOB_NODELIST": None}, "SLURM_JOB_NODELIST is not set"),
        ({"SLURM_JOB_ID": "x"}, "SLURM_JOB_ID='x' is not a whole number"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID='' is not a whole number"),
        ({"SLURM_GPUS_ON_NODE": "many"}, "SLURM_GPUS_ON_NODE='many' is not a whole number"),
        ({"NODEID": "first"}, "SLURM_NODEID='first' is not a whole number"),
    ],
)
def test_half_a_job_is_an_error_with_the_remedy(
    checkout: SmallCheckout, commands: Path, changes: dict[str, str | None], told: str
) -> None:
    variables = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    code, said = launch(checkout, commands, **variables)
    assert (code, told in said, "env -u SLURM_JOB_ID" in said) == (2, True, True), said


@pytest.mark.parametrize("missing", ["scontrol", "srun"])
def test_a_missing_command_is_named(checkout: SmallCheckout, commands: Path, missing: str, tmp_path: Path) -> None:
    # everything but SLURM, which may be installed here; a python3 in PATH may be a script of pyenv that needs its PATH
    stand_in(commands, "python3", f'exec {shlex.quote(sys.executable)} "$@"')
    for name in ("bash", "env", "sh"):
        (commands / name).symlink_to(subprocess.check_output(["sh", "-c", f"command -v {name}"], text=True).strip())
    (commands / missing).unlink()
    code, said = launch(checkout, commands, **WHOLE, PATH=str(commands), TRAINYARD_VENV=sys.prefix)
    assert (code, f"there is no `{missing}` in PATH" in said, len(said.splitlines())) == (2, True, 1), said


def test_a_command_that_fails_is_quoted(checkout: SmallCheckout, commands: Path) -> None:
    stand_in(commands, "scontrol", "echo invalid host list >&2; exit 1")
    code, said = launch(checkout, commands, **WHOLE)
    assert (code, "exit code 1: invalid host list" in said) == (2, True)


def test_outside_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert current_job() is None


@pytest.fixture(params=["listens", "is bound"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port of this machine that another socket has."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        if request.param == "listens":
            other.listen()
        yield other.getsockname()[1]


class TestPort:
    @pytest.fixture(autouse=True)
    def no_choice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TRAINYARD_PORT", raising=False)

    @pytest.mark.slow
    def test_where_it_is_taken_another_one_is_found(self, taken: int) -> None:
        assert taken < meeting_port("127.0.0.1", taken, "of the job") < taken + 100

    @pytest.mark.slow
    def test_the_one_that_was_chosen_is_refused_where_it_is_taken(
        self, taken: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRAINYARD_PORT", str(taken))
        for choose in (lambda: meeting_port("127.0.0.1", 1, ""), free_local_port):
            with pytest.raises(JobError, match=f"port {taken} on 127.0.0.1 is taken .* TRAINYARD_PORT chose it"):
                choose()

    @pytest.mark.slow
    @pytest.mark.parametrize("port", ["many", "0", "65536", "-1"])
    def test_a_choice_that_is_none(self, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRAINYARD_PORT", port)
        with pytest.raises(JobError, match="is not a port"):
            free_local_port()

    @pytest.mark.slow
    def test_a_choice_that_only_root_may_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRAINYARD_PORT", "80")
        monkeypatch.setattr(slurm_job, "_bind_error", lambda *_: errno.EACCES)
        with pytest.raises(JobError, match="TRAINYARD_PORT=80 is a port that only root may open; choose one from 1024"):
            free_local_port()

    def test_a_launch_says_which_one_it_takes(self, checkout: SmallCheckout, commands: Path) -> None:
        with socket.socket() as other:
            other.bind(("0.0.0.0", 10077))
            other.listen()
            code, said = launch(checkout, commands, **WHOLE)
        assert (code, "port 10077 on 127.0.0.1 is taken; the processes meet at 10078" in said) == (0, True), said
        arguments = checkout.node()["arguments"]
        assert arguments[arguments.index("--port") + 1] == "10078"

    def test_a_launch_takes_the_one_that_was_chosen(self, checkout: SmallCheckout, commands: Path) -> None:
        for job in (WHOLE, {}):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            assert launch(checkout, commands, **job, TRAINYARD_PORT=port)[0] == 0
            arguments = checkout.node()["arguments"]
            assert arguments[arguments.index("--port") + 1] == port
            subprocess.run(["rm", "-r", checkout.launch_directory], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network without loopback, which only root can")
@pytest.mark.parametrize("network", ["true", "ip link set lo up; ip link set lo down"], ids=["never up", "down again"])
def test_without_loopback_a_launch_ends_at_once(checkout: SmallCheckout, network: str) -> None:
    command = ["unshare", "--net", "sh", "-c", f"{network}; exec {checkout.launch} {RUN}"]
    environment = environment_without_settings()
    done = subprocess.run(command, env=environment, cwd=checkout.root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "ip link set lo up" in done.stderr, "127.0.0.1" in done.stderr) == (2, True, True)
    assert not checkout.launch_directory.exists()


def test_a_request_to_stop_reaches_a_run_whose_folder_was_deleted(checkout: SmallCheckout) -> None:
    environment = {**environment_without_settings(), "STAND_IN": "stubborn"}
    process = subprocess.Popen(
        [checkout.launch, RUN],
        cwd=checkout.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "node 0 listens\n"
    checkout.launch_directory.rename(checkout.root / "gone")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said and "No such file" in said
