"""Folders that several files of tests read; none of them changes one."""

from pathlib import Path

import pytest

from tests.megatron_patches.transformers_exchange.folders import CONTINUE, make_folder
from tests.ranks import run_on_ranks
from tests.small_training import SmallData


def _make(place: Path, data: SmallData) -> None:
    for family in CONTINUE:
        make_folder(place / family, family, data)
    make_folder(place / "shards", "gpt2", data, "bfloat16", shards=True)


@pytest.fixture(scope="session")
def transformers_folders(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each family in fp32, by its name, and `shards`: GPT-2 in bf16, in three files."""
    place = tmp_path_factory.mktemp("transformers")
    run_on_ranks(_make, 1, place, small_data)
    return place
