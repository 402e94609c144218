"""`hf:NAME` and `hf:FOLDER`: how a dataset of the Hugging Face library is named, and what its splits are for."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import printable, shortened, storable

PREFIX = "hf:"
TRAINING_SPLIT = "train"
EVALUATION_SPLITS = ("validation", "valid", "eval", "test", "dev")
"""names that say a split is for evaluation; the first that is there is taken"""
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_FOLDERS = ("/", "./", "../", "~")
"""what the path of a folder begins with, and no name on the hub"""


def is_hub(text: str) -> bool:
    """Whether a source is named this way."""
    return text.startswith(PREFIX)


class HubSpec(NamedTuple):
    """`hf:NAME`, `hf:NAME#CONFIGURATION`, or the same with a folder: what `datasets.load_dataset` is given."""

    location: str
    """`OWNER/NAME` on the hub, or the path of a folder; a folder that is there is taken before the hub"""
    configuration: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a name; whether it exists is looked at when it is opened.

        Raises:
            Missing: it is the path of a folder, which is not there.
            TrainyardError: it is neither of the two.
        """
        told = shortened(printable(text))
        bare = text.removeprefix(PREFIX)
        location, mark, configuration = bare.rpartition("#")
        if not mark or Path(bare).expanduser().is_dir():
            location, configuration = bare, ""
        if mark and location != bare and not configuration:
            raise TrainyardError(f"{told}: no configuration after the #; name it, or leave out the #")
        spec = cls(location, configuration or None)
        if spec.folder is None and location.startswith(_FOLDERS):
            raise Missing(f"{told}: folder {shortened(printable(location))} does not exist")
        if spec.folder is None and not _ON_THE_HUB.fullmatch(location):
            raise TrainyardError(
                f"{told} is no dataset: expected {PREFIX}OWNER/NAME on the Hugging Face hub, or {PREFIX}FOLDER for a "
                f"folder that exists, each with #CONFIGURATION after it where there are several"
            )
        return spec

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one."""
        folder = Path(self.location).expanduser()
        return folder if self.location and folder.is_dir() else None

    @property
    def name(self) -> str:
        """How manifests call it: of a folder its name alone."""
        folder = self.folder
        return self.location if folder is None else storable(folder.resolve().name)


def evaluation_split(splits: Sequence[str]) -> str | None:
    """The split that is for evaluation by its name; None if there is none."""
    return next((name for name in EVALUATION_SPLITS if name in splits), None)


def chosen_split(asked: str | None, splits: Sequence[str], told: str) -> str:
    """The split that is asked for; the one for training if none is, which is the only one where there is one.

    Args:
        told: how errors call the dataset.

    Raises:
        Missing: it is not there.
    """
    there = shortened(", ".join(splits) or "none", 500)
    if asked is not None:
        if asked not in splits:
            raise Missing(f"{told} has no split {shortened(printable(asked))!r}, only {there}; name one of them")
        return asked
    if TRAINING_SPLIT in splits:
        return TRAINING_SPLIT
    if len(splits) != 1:
        raise Missing(f"{told} has no split {TRAINING_SPLIT!r} and several others, {there}; name one of them")
    return splits[0]
