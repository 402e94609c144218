"""Why a launch failed: the first cause in time, of what its ranks recorded and of which process ended first."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.run_folder import FAILURE
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import shortened

_RECORD_BYTES = 1 << 20
_SURVIVORS_SECONDS = 5.0
"""A rank that is killed says nothing, and the others find it gone before its node does: by milliseconds, and by more
where clocks differ. What a rank recorded longer before that is a cause of its own."""


def first_failure(launch: Path, events: Sequence[Mapping[str, Any]]) -> str | None:
    """What failed first in a launch, in one line; None where nothing failed.

    Args:
        launch: its folder, whose `failure.json` names the process that ended first.
        events: those of the launch, of all its files; kinds other than `failure` are passed over.
    """
    said = sorted((event for event in events if event.get("kind") == "failure"), key=_seconds)
    try:
        ended = parse_object(read_bounded(launch / FAILURE, _RECORD_BYTES), FAILURE)
    except Missing:
        ended = None
    except (Damaged, Refused):  # written while the disk was full, or meddled with: what ranks said is left
        ended = None if said else {"text": f"launch {launch.name}; {FAILURE} is empty or damaged: was its disk full?"}
    if ended is not None and not _is_explained(ended, said):
        return shortened(ended.get("text") or _process(ended), 200)
    return _event(said[0]) if said else None


def _is_explained(ended: Mapping[str, Any], said: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rank recorded what the process ended of: that rank itself, or another one well before."""
    if not said:
        return False
    known = [event for event in said if "rank" in event]
    if any(event["rank"] == ended.get("rank") for event in known):
        return True
    if "time" not in ended:  # of a launch before these were recorded
        code = ended.get("exit_code")
        return not (isinstance(code, int) and code > 128)
    return _seconds(said[0]) < _seconds(ended) - _SURVIVORS_SECONDS


def _seconds(record: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(record.get("time"))).timestamp()
    except (ValueError, OverflowError):
        return float("inf")


def _process(ended: Mapping[str, Any]) -> str:
    code = ended.get("exit_code")
    how = f"was ended by signal {code - 128}" if isinstance(code, int) and code > 128 else f"ended with code {code}"
    return f"rank {ended.get('rank')} on {ended.get('node')} {how}"


def _event(event: Mapping[str, Any]) -> str:
    lines = [line for line in str(event.get("text", "")).splitlines() if line.strip()]
    words = shortened(lines[0], 200) if lines else shortened(event.get("error", "no reason was recorded"))
    return f"at step {shortened(event.get('step'), 30)}: {words}"
