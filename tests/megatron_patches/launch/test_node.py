"""One node of a launch: with small workers in place of the ranks."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.failure import Failure, record_failure
from megatron_patches.launch.rank import lost_another_rank, require_gpu, storage_problem
from megatron_patches.launch.rank_processes import NodeRanks, RankEnded, RankProcesses
from megatron_patches.launch.rank_settings import available_cpus
from megatron_patches.run.reading import to_yaml
from tests.small_training import SmallData, overrides

# the node as it is, but for the module that its processes run
NODE = "import sys; from megatron_patches.launch import node; node.RANK = 'worker'; sys.exit(node.main(sys.argv[1:]))"

FAILING_NODE = """
import sys, time
from pathlib import Path
from megatron_patches.launch import node

def watch(ranks, folder, parent, is_first):
    while not (folder / "started").exists():
        time.sleep(0.01)
    raise OSError("a file system that fails")

node.RANK, node.watch = "worker", watch
node.main(sys.argv[1:])
"""
STARTS_ANOTHER = """
import os, subprocess, sys, time
from pathlib import Path
print(os.getpid(), subprocess.Popen(["sleep", "60"]).pid, flush=True)
Path(sys.argv[1], "started").touch()
time.sleep(60)
"""

RECORDS_ITSELF = """
import json, os, signal, sys, time
from pathlib import Path
launch_directory, rank = Path(sys.argv[1]), os.environ["RANK"]
wanted = ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
text = json.dumps({name: os.environ[name] for name in wanted})
(launch_directory / f"rank-{rank}.json").write_text(text)
"""
WAITS_FOR_REQUEST = (
    RECORDS_ITSELF
    + """
time.sleep(1.5)  # as if importing torch, while the request comes
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
time.sleep(60)
"""
)
RANK_1_ENDS = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    {end}
time.sleep(60)
"""


def start_node(
    folder: Path, worker: str, nodes: int = 1, rank: int = 0, processes: int = 2, program: str = NODE
) -> subprocess.Popen[str]:
    (folder / "worker.py").write_text(worker)
    place = ["--nodes", str(nodes), "--node-rank", str(rank), "--processes", str(processes)]
    meeting = ["--host", "127.0.0.1", "--port", str(20000 + os.getpid() % 10000)]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{CHECKOUT}"}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), *place, *meeting],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} does not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("threads", [None, "3"], ids=["all CPUs", "as the user says"])
def test_two_nodes_meet_and_an_early_request_reaches_each_process(
    threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    nodes = [start_node(tmp_path, WAITS_FOR_REQUEST, nodes=2, rank=rank, processes=1) for rank in (0, 1)]
    wait_for(tmp_path / "rank-0.json")
    (tmp_path / "stop-requested").touch()
    for node in nodes:
        assert node.communicate(timeout=120) == ("", "")
        assert node.returncode == 0
    for rank in (0, 1):
        worker = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert worker == {
            "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": threads or str(available_cpus()),
        }  # fmt: skip
    assert not (tmp_path / "failure.json").exists()


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit(7)", 7, "ended with code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was ended by SIGKILL"),
    ],
)
def test_a_failure_is_told_in_one_line_and_recorded(tmp_path: Path, end: str, code: int, said: str) -> None:
    node = start_node(tmp_path, RANK_1_ENDS.format(end=end))
    host = os.uname().nodename
    assert node.communicate(timeout=120) == ("", f"rank 1 on {host} {said}\n")
    assert node.returncode == code
    record = json.loads((tmp_path / "failure.json").read_text())
    assert abs(time.time() - datetime.fromisoformat(record.pop("time")).timestamp()) < 120
    assert record == {"rank": 1, "node": host, "exit_code": code, "text": f"rank 1 on {host} {said}"}


def test_a_node_that_a_signal_ends_takes_its_processes_along(tmp_path: Path) -> None:
    worker = f"{RECORDS_ITSELF}\n(launch_directory / f'pid-{{rank}}').write_text(str(os.getpid()))\ntime.sleep(60)"
    node = start_node(tmp_path, worker)
    for rank in (0, 1):
        wait_for(tmp_path / f"pid-{rank}")
    node.send_signal(signal.SIGTERM)
    assert node.communicate(timeout=120) == ("", "")
    assert node.returncode == 128 + signal.SIGTERM
    for rank in (0, 1):
        assert not Path("/proc", (tmp_path / f"pid-{rank}").read_text()).exists()
    assert not (tmp_path / "failure.json").exists()


def test_the_first_failure_is_the_one_on_record(tmp_path: Path) -> None:
    first = Failure.of_rank(5, -9, tmp_path)
    record_failure(first, tmp_path)
    record_failure(Failure.of_rank(0, 1, tmp_path), tmp_path)
    assert json.loads((tmp_path / "failure.json").read_text()) == asdict(first)
    assert (first.rank, first.exit_code) == (5, 137)
    assert [path.name for path in tmp_path.iterdir()] == ["failure.json"]


def test_a_record_that_cannot_be_written_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_failure(Failure.of_rank(0, 1, tmp_path), tmp_path / "gone")
    assert "failure.json could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("code", [-64, -200])
def test_a_signal_without_a_name_is_told_by_its_number(tmp_path: Path, code: int) -> None:
    assert Failure.of_rank(0, code, tmp_path).exit_code == 128 - code


class TestShortenedData:
    """SIGBUS: what a rank reads as memory is no longer there."""

    @pytest.fixture
    def launch(self, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A launch's folder, whose run reads a dataset of its own."""
        shutil.copytree(small_data.folder, tmp_path / "data")
        config = small_data.run(tmp_path, overrides(data__path=tmp_path / "data" / "text"))
        (tmp_path / "config.yaml").write_text(to_yaml(config))
        return tmp_path

    def test_the_file_is_named(self, launch: Path) -> None:
        tokens = launch / "data" / "text.bin"
        os.truncate(tokens, 1000)
        told = Failure.of_rank(1, -signal.SIGBUS, launch).text
        assert "was ended by SIGBUS: " in told and "run tools/preprocess again" in told
        assert f"{tokens} was shortened: it has 1,000 of the " in told

    def test_a_missing_file_is_named(self, launch: Path) -> None:
        (launch / "data" / "text.bin").unlink()
        assert (
            f"{launch / 'data' / 'text.bin'} cannot be read (No such file or directory)"
            in Failure.of_rank(1, -signal.SIGBUS, launch).text
        )

    def test_where_the_data_is_whole_other_causes_are(self, launch: Path) -> None:
        assert "/dev/shm is full" in Failure.of_rank(1, -signal.SIGBUS, launch).text

    def test_without_a_configuration(self, tmp_path: Path) -> None:
        assert "perhaps one of its dataset" in Failure.of_rank(1, -signal.SIGBUS, tmp_path).text


def test_a_rank_that_reads_what_is_cut_off_ends_with_the_files_name(small_data: SmallData, tmp_path: Path) -> None:
    shutil.copytree(small_data.folder, tmp_path / "data")
    config = small_data.run(tmp_path, overrides(data__path=tmp_path / "data" / "text"))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    worker = f"""
import os, numpy
tokens = numpy.memmap({str(tmp_path / "data" / "text.bin")!r}, dtype="u2", mode="r")
os.truncate({str(tmp_path / "data" / "text.bin")!r}, 0)
tokens.sum()
"""
    node = start_node(tmp_path, worker, processes=1)
    said = node.communicate(timeout=120)[1]
    assert node.returncode == 128 + signal.SIGBUS
    assert "text.bin was shortened: it has 0 of the " in said


DEAF = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1], f"started-{os.environ['RANK']}").touch()
time.sleep(600)  # in a call that does not return, before it listens
"""
IMPATIENT = f"from megatron_patches.launch import node; node.START_AFTER_REQUEST = 1; {NODE}"


def test_ranks_that_hang_in_their_start_end_when_the_run_is_asked_to_stop(tmp_path: Path) -> None:
    node = start_node(tmp_path, DEAF, program=IMPATIENT)
    for rank in (0, 1):
        wait_for(tmp_path / f"started-{rank}")
    (tmp_path / "stop-requested").touch()
    said = node.communicate(timeout=120)[1]
    assert (node.returncode, "ranks 0, 1 on" in said, "have not begun to train" in said) == (0, True, True)
    assert (tmp_path / "stopped").exists()


def test_a_run_whose_folder_is_deleted_ends(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    node = start_node(tmp_path / "launch", DEAF)
    for rank in (0, 1):
        wait_for(tmp_path / "launch" / f"started-{rank}")
    shutil.rmtree(tmp_path / "launch")
    said = node.communicate(timeout=120)[1]
    assert node.returncode == 1
    assert f"{tmp_path / 'launch'} was deleted while its run went on" in said and "Traceback" not in said


@pytest.mark.parametrize(("begins", "code", "said"), [(False, 0, ["asked"]), (True, 1, [])])
def test_a_launch_that_was_taken_over_is_asked_to_save_unless_the_other_trains(
    tmp_path: Path, begins: bool, code: int, said: list[str]
) -> None:
    own, later = (tmp_path / "launches" / name for name in ("0001", "0002"))
    own.mkdir(parents=True)
    node = start_node(own, ASKED)
    for rank in (0, 1):
        wait_for(own / f"started-{rank}")
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    if begins:
        record_beginning(prepared, Beginning(2, 0, None))
    prepared.rename(later)
    told = node.communicate(timeout=120)
    assert (node.returncode, sorted(set(told[0].split()))) == (code, said)
    assert "launch 0002 has taken the run over: this one stops" in told[1]


ASKED = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGUSR1, lambda *_: (os.write(1, b"asked\\n"), sys.exit(0)))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
Path(sys.argv[1], f"started-{os.environ['RANK']}").touch()
time.sleep(600)
"""


def test_cpus_are_those_that_slurm_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    assert available_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert available_cpus() == 1
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4096")
    assert available_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "some")
    with pytest.raises(TrainyardError, match="SLURM_CPUS_ON_NODE='some' is not a whole number"):
        available_cpus()


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[.../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:53160. This is", True),
        ("[.../gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:7080: Connection reset by peer.", True),
        ("NCCL error in: ...\nncclRemoteError: A call failed possibly due to a network error", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
        ("CUDA out of memory", False),
    ],
)
def test_who_ends_of_another_rank_s_end_is_known_by_its_words(said: str, lost: bool) -> None:
    assert lost_another_rank(RuntimeError(said)) is lost


class TestStorageProblems:
    """What a rank says of a file system that fails; errors that may be ours keep their traceback."""

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk(self, number: int, tmp_path: Path) -> None:
        told = storage_problem(OSError(number, os.strerror(number)), tmp_path)
        assert told is not None and told.startswith(f"{tmp_path}: ") and "make room there" in told

    def test_a_deleted_run(self, tmp_path: Path) -> None:
        gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
        assert "was deleted" in str(storage_problem(gone, tmp_path / "gone"))
        assert storage_problem(gone, tmp_path) is None

    def test_another_error(self, tmp_path: Path) -> None:
        assert storage_problem(PermissionError(errno.EACCES, "Permission denied"), tmp_path) is None


def test_each_rank_has_a_gpu_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    require_gpu(local_rank=1, processes=4)
    with pytest.raises(TrainyardError, match=r"4 processes on .* has 2 GPUs .*CUDA_VISIBLE_DEVICES="):
        require_gpu(local_rank=2, processes=4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    require_gpu(local_rank=2, processes=4)


@pytest.mark.slow
def test_a_program_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RankProcesses([str(tmp_path / "nothing")], NodeRanks(2, first=0, count=2, host="127.0.0.1", port=1))


@pytest.mark.slow
def test_a_process_that_does_not_end_when_asked_is_killed() -> None:
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    stubborn = f"{ignore}; print('ready', flush=True); time.sleep(60)"
    with tempfile.TemporaryFile("w+") as output:
        ranks = RankProcesses(
            [sys.executable, "-c", stubborn], NodeRanks(1, first=0, count=1, host="127.0.0.1", port=1), output=output
        )
        end = time.monotonic() + 60
        while not os.fstat(output.fileno()).st_size:
            assert time.monotonic() < end
            time.sleep(0.01)
        ranks.end(grace=0.2)
    assert not ranks.running
    assert ranks.next_event(timeout=10) == RankEnded(0, -signal.SIGKILL)


def test_no_rank_goes_on_where_its_node_fails_nor_what_it_started(tmp_path: Path) -> None:
    node = start_node(tmp_path, STARTS_ANOTHER, processes=1, program=FAILING_NODE)
    output, error = node.communicate(timeout=120)
    assert node.returncode == 1 and "a file system that fails" in error
    assert len(output.split()) == 2
    for pid in output.split():
        status = Path("/proc", pid, "status")
        assert not status.exists() or "(zombie)" in status.read_text()
