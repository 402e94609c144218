"""What tests ask of a process whose libraries know one hub: they read its address when they are imported."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any, NamedTuple

from data_tools.reading import hugging_face_client
from data_tools.reading.block import Part
from data_tools.reading.hugging_face import HubDataset, open_hub
from data_tools.reading.hugging_face_name import HubSpec
from megatron_patches.errors import TrainyardError

Batches = list[tuple[list[str | None], dict[str, Any]]]
"""of each block, its texts and the position after it"""


class Told(NamedTuple):
    """What came of it: a value or an error, and what was said on the way."""

    value: Any
    error: TrainyardError | None
    stderr: str


_opened: dict[str, HubDataset] = {}


def begin(environment: dict[str, str]) -> None:
    """First of all: nothing is imported yet that reads the environment."""
    os.environ.update(environment)
    hugging_face_client.FIRST_PAUSE = 0.01


def opened(text: str, **options: Any) -> Told:
    """Opens a dataset, for `read`; the value is the dataset without its parts, and their names."""
    return _told(lambda: _open(text, options))


def read(text: str, index: int, row: int = 0, hashed: bool = False) -> Told:
    """Reads a part of a dataset that is open."""
    return _told(lambda: read_part(_opened[text].parts()[index], row, hashed))


def without_network(text: str) -> Told:
    """Opens a dataset where no hub answers, and none ever did."""
    from huggingface_hub import constants

    address, constants.ENDPOINT = constants.ENDPOINT, "http://127.0.0.1:9"
    hugging_face_client._reached = False
    try:
        return _told(lambda: _open(text, {}))
    finally:
        constants.ENDPOINT = address


def offline(text: str, **options: Any) -> Told:
    """Opens a dataset as a process with HF_HUB_OFFLINE=1 does, and reads its first part."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    try:
        return _told(lambda: (_open(text, options), read_part(_opened[text].parts()[0])))
    finally:
        del os.environ["HF_HUB_OFFLINE"]
        constants.HF_HUB_OFFLINE = False


def read_part(part: Part, row: int = 0, hashed: bool = False) -> tuple[Batches, str | None]:
    """The blocks after a row, checked for what they say of themselves, and the hash of the whole part."""
    import pyarrow

    batches: Batches = []
    for block in part.blocks({"row": row} if row else {}, hashed):
        texts = pyarrow.ipc.open_stream(block.content).read_all().column(0).to_pylist()
        assert (block.form, block.unit, block.first, block.entries) == ("rows", "row", row + 1, len(texts))
        row += len(texts)
        assert block.position == {"row": row}
        batches.append((texts, dict(block.position)))
    return batches, part.content().sha256 if hashed else None


def _open(text: str, options: dict[str, Any]) -> tuple[HubDataset, list[str]]:
    dataset = _opened[text] = open_hub(HubSpec.parse(text), **options)
    return dataset._replace(shards=()), [part.name for part in dataset.parts()]


def _told(action: Callable[[], Any]) -> Told:
    with redirect_stderr(io.StringIO()) as stderr:
        try:
            return Told(action(), None, stderr.getvalue())
        except TrainyardError as error:
            # of the class, as it may hold what cannot be sent
            return Told(None, type(error)(str(error)), stderr.getvalue())
