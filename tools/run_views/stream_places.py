"""Places in a run's text sources that its checkpoints keep, so that what a step read is found without reading all."""

from data_tools.streams.position import StreamPosition
from data_tools.text_sources.places import kept_places
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError

Places = dict[str, list[StreamPosition]]
"""by the source's name"""


def stream_places(run: RunFolder) -> Places:
    """All there are; checkpoints that cannot be read have none, and cost no more than time."""
    found: Places = {}
    for folder in list_checkpoints(run.checkpoints):
        try:
            places = kept_places(folder)
        except TrainyardError:
            continue
        for name, position in places.items():
            found.setdefault(name, []).append(position)
    return found
