"""What a submitted script does first: of all jobs that one submission may have brought into the queue, one works."""

import os
import re
import shlex
from pathlib import Path

from megatron_patches.errors import Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable

RECORD = "job"
"""file that holds the id of the job that works; whoever makes it first, submitter or job, decides"""
WITHDRAWN = "withdrawn"
"""what it holds where no job is to work"""
SCRIPT_BYTES = 4 << 20
"""SLURM's own limit (max_script_size)"""

_SHELL = re.compile(rb"#!\s*(\S*/env\s+(-\S+\s+)*)?(\S*/)?(sh|bash|dash|ksh|zsh)(\s|$)")

# For any POSIX shell, on a node that need have nothing else. Code 3: another job holds the submission. A record that
# is there is only read; a file system without hard links has exclusive creation.
_FENCE = """\
# Trainyard's submission: of the jobs that a cut connection may have brought into the queue, one works
trainyard_submission={submission}
(
  own=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}
  cd {folder} 2> /dev/null || {{
    echo "error: job $own does nothing: its submission" {key} "was withdrawn," \\
      {folder} "was deleted, or this node does not see it; submit again" >&2
    exit 2
  }}
  holder=$(cat {record} 2> /dev/null)
  if [ -z "$holder" ]; then
    draft=draft-$SLURM_JOB_ID-$$
    echo "$own" > "$draft" || exit 2
    ln "$draft" {record} 2> /dev/null || [ -e {record} ] || (set -C; cat "$draft" > {record}) 2> /dev/null
    rm -f "$draft"
    tries=0
    until holder=$(cat {record} 2> /dev/null) && [ -n "$holder" ] || [ "$tries" -ge 30 ]; do
      sleep 1
      tries=$((tries + 1))
    done
  fi
  [ "$holder" != "$own" ] || exit 0
  case $holder in
    '') echo "error: job $own cannot claim its submission in" {folder} >&2; exit 2 ;;
    {withdrawn}) echo "error: job $own does nothing: its submission" {key} "was withdrawn" >&2; exit 2 ;;
  esac
  echo "note: job $own does nothing: job $holder is the one of its submission" {key} >&2
  exit 3
) || case $? in 3) exit 0 ;; *) exit 2 ;; esac
"""


def read_script(path: Path) -> bytes:
    """The text of a job script that a fence can be put into.

    Raises:
        Missing: there is no such file.
        Damaged: it is larger than SLURM takes.
        Refused: it is no plain file, or no script of a POSIX shell.
    """
    text = read_bounded(path, SCRIPT_BYTES)
    first = text.split(b"\n", 1)[0]
    if not _SHELL.match(first):
        raise Refused(
            f"{printable(path)} does not begin with #!/bin/bash or another POSIX shell, which a submission needs; "
            "call your program from such a script"
        )
    return text


def fenced(text: bytes, key: str, submission: Path, folder: Path) -> bytes:
    """The script with the fence behind its #SBATCH lines, which end at the first line that is no comment.

    Args:
        submission: folder of the key; the script finds it in `$trainyard_submission`.
        folder: absolute folder of the record, which every node sees.
    """
    lines = text.split(b"\n")
    head = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith(b"#")), len(lines))
    fence = _FENCE.format(
        submission=shlex.quote(str(submission)),
        folder=shlex.quote(str(folder)),
        key=shlex.quote(key),
        record=RECORD,
        withdrawn=WITHDRAWN,
    )
    return b"\n".join([*lines[:head], *os.fsencode(fence).rstrip(b"\n").split(b"\n"), *lines[head:]])
