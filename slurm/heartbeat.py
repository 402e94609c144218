"""Signs of life of a launch: who launched it, and a number that grows while its launcher waits.

`slurm/launch` writes them on a login node's Python: standard library only, and nothing newer than Python 3.6.
"""
# ruff: noqa: UP006, UP035, UP045

import os
import socket
import stat
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any, Dict, Optional

HEARTBEAT = "heartbeat"
"""file in a launch's folder: a number and the time, rewritten in place"""
ENDED = "ended.json"
"""file in a launch's folder, written by its launcher as the last thing"""
SECONDS_BETWEEN_BEATS = 2.0


def this_process() -> Dict[str, Any]:
    """What tells this process from every other on any machine, and the SLURM job that it is part of.

    A pid means something within its machine's start and its pid namespace alone; with its time of start it is not
    given a second time.
    """
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
        "user": os.getuid(),
        "pid": pid,
        "started": started_at(pid),
        "job": _number("SLURM_JOB_ID"),
        "restarts": _number("SLURM_RESTART_COUNT") or 0,
        "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
    }


def started_at(pid: int) -> Optional[int]:
    """When a process of this machine started, in clock ticks since the machine did; None where there is none."""
    fields = (_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    # the third field of the file is the first behind the name; a zombie (Z) or a dead process (X) does nothing any more
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def _text(path: str) -> Optional[str]:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _link(path: str) -> Optional[str]:
    try:
        return os.readlink(path)  # noqa: PTH115  Path.readlink is newer than Python 3.6
    except OSError:
        return None


def _number(name: str) -> Optional[int]:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


class Heartbeat:
    """Counts in a file while its owner lives.

    The file keeps its inode and its size: a network file system shows new content to whoever opens the file, while a
    new file under the same name may hide behind what a client remembers of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEARTBEAT
        self._count = 0
        self._beaten = -SECONDS_BETWEEN_BEATS
        self._failed = False

    def beat(self) -> Optional[str]:
        """Count on, if it is time; why that failed, the first time that it does.

        A launch whose folder takes no writes can neither save nor be recorded, so what it trains tells the rest.
        """
        if monotonic() - self._beaten < SECONDS_BETWEEN_BEATS:
            return None
        self._beaten = monotonic()
        self._count += 1
        try:
            self._write(beat_text(self._count))
        except OSError as error:
            first, self._failed = not self._failed, True
            return f"{self._path}: {error}; another launch may take this one for dead" if first else None
        self._failed = False
        return None

    def _write(self, content: bytes) -> None:
        """What took the file's place (a link, a pipe) goes; what was added to it by hand as well."""
        try:
            if not stat.S_ISREG(self._path.lstat().st_mode):
                self._path.unlink()
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(str(self._path), flags, 0o666)
        try:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def beat_text(count: int) -> bytes:
    """The file's content, of one length: the number by which a launch lives, and for people when it was."""
    return "{:020d} {}+00:00\n".format(count, datetime.utcnow().isoformat(timespec="milliseconds")).encode()
