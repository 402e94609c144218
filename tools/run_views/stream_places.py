"""Places in a run's text sources that its checkpoints keep, so that what a step read is found without reading all."""

from data_tools.streams.position import StreamPosition
from data_tools.text_sources.places import STATE_KEY, places_of
from megatron_patches.artefacts.folders import TRAINER_STATE, list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object

Places = dict[str, list[StreamPosition]]
"""by the source's name"""


def stream_places(run: RunFolder) -> Places:
    """All there are; checkpoints that cannot be read have none, and cost no more than time."""
    found: Places = {}
    for folder in list_checkpoints(run.checkpoints):
        try:
            callbacks = parse_object(read_bounded(folder / TRAINER_STATE), str(folder)).get("callbacks")
            places = places_of(callbacks.get(STATE_KEY) if isinstance(callbacks, dict) else None)
        except TrainyardError:
            continue
        for name, position in places.items():
            found.setdefault(name, []).append(position)
    return found
