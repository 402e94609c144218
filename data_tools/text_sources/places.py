"""Places in the text sources of a run, as its checkpoints keep them: a state of a callback in `trainer.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_tools.streams.position import StreamPosition
from megatron_patches.artefacts.folders import TRAINER_STATE
from megatron_patches.errors import Damaged
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable

STATE_KEY = "streams"


def places_to_json(places: Mapping[str, StreamPosition]) -> dict[str, Any]:
    """As a checkpoint has them, by the sources' names."""
    return {name: position.model_dump() for name, position in places.items()}


def places_of(state: object) -> dict[str, StreamPosition]:
    """The inverse; none of a checkpoint without them.

    Raises:
        Damaged: something else stands there.
    """
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        raise Damaged(f"places in text sources are {printable(repr(state))[:80]}, expected an object")
    try:
        return {str(name): StreamPosition.model_validate(value) for name, value in state.items()}
    except ValidationError as error:
        reason = printable(str(error).splitlines()[0])
        raise Damaged(f"the place in a text source cannot be read ({reason}); use another checkpoint") from None


def kept_places(checkpoint: Path) -> dict[str, StreamPosition]:
    """Those that a checkpoint's folder keeps.

    Raises:
        TrainyardError: its file is missing or damaged.
    """
    callbacks = parse_object(read_bounded(checkpoint / TRAINER_STATE), str(checkpoint)).get("callbacks")
    return places_of(callbacks.get(STATE_KEY) if isinstance(callbacks, dict) else None)
