"""What was set otherwise in the course of a run, as its checkpoints and its events have it on record. Torch-free."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import shortened
from megatron_patches.run.progress import ChangeRecord

CHANGES = "changes"
"""fact of a checkpoint: what was changed on its way, as `[{step, key, before, now}, ...]`, oldest first"""
MOST = 100
"""changes that a checkpoint tells, the newest; events have all"""
_STEPS = 10**10
_CHARACTERS = 500
"""of a value that is recorded as it is"""
_CHARACTERS_OF_LINES = 4000
"""of one that is lines of text, as changes of sources are"""


def changes_of(facts: Mapping[str, Any]) -> list[ChangeRecord]:
    """What was changed on a checkpoint's way; what is no record of a change is left out."""
    told = facts.get(CHANGES)
    found = [_read(each) for each in told[-MOST:]] if isinstance(told, list) else []
    return [each for each in found if each is not None]


def continued_changes(earlier: Iterable[ChangeRecord], now: Iterable[ChangeRecord]) -> list[ChangeRecord]:
    """Both together, oldest first; of two changes of one key at one step the later one counts."""
    together = {(each.step, each.key): each for each in (*earlier, *now)}
    return list(together.values())[-MOST:]


def as_fact(changes: Sequence[ChangeRecord]) -> list[dict[str, Any]]:
    """The inverse of `changes_of`."""
    return [{"step": each.step, "key": each.key, "before": each.before, "now": each.now} for each in changes]


def in_json(value: Any) -> Any:
    """A value for the record, as JSON gives it back; what is long, or no JSON, in words."""
    try:
        written = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return shortened(value, 60)
    is_lines = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    bound = _CHARACTERS_OF_LINES if is_lines else _CHARACTERS
    return json.loads(written) if len(written) <= bound else shortened(written, 60)


def _read(told: object) -> ChangeRecord | None:
    if not isinstance(told, dict):
        return None
    step, key = whole_of(told.get("step"), _STEPS), told.get("key")
    if step is None or not isinstance(key, str):
        return None
    return ChangeRecord(step, shortened(key, 100), in_json(told.get("before")), in_json(told.get("now")))
