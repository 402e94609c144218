"""Models in the form of published ones are imported, and prove to be the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.megatron_patches.transformers_exchange.folders import write_run
from tests.megatron_patches.transformers_exchange.published import PUBLISHED, make_published
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

pytestmark = pytest.mark.slow

TIED_TWICE = "distilbert/distilgpt2"
"""which stores its tied head too"""


def import_all(place: Path, data: SmallData) -> dict[str, Any]:
    """The card and the plan's types of each, or what speaks against it."""
    from megatron_patches.errors import TrainyardError
    from megatron_patches.run.reading import load_run
    from megatron_patches.transformers_exchange.import_plan import open_data, plan_import
    from megatron_patches.transformers_exchange.importing import CardRequest, import_transformers

    os.environ |= {f"TRAINYARD_{name}": str(place / name.lower()) for name in ("RUNS", "CACHE", "DATA")}
    found: dict[str, Any] = {}
    for number, name in enumerate(PUBLISHED):
        folder = make_published(place / str(number), name, data)
        run = load_run(write_run(place / "tr900-tests", f"tr900d-28K-published-{number}", data, folder))
        try:
            plan = plan_import(folder, run, open_data(run))
            done = import_transformers(plan, place / f"made-{number}", CardRequest("a test"))
            found[name] = done.card, plan.dtypes
            if name == TIED_TWICE:
                by_block = CardRequest("a test", by_block=True)
                found["by block"] = import_transformers(plan, place / "by-block", by_block).card
        except TrainyardError as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def imported(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_on_ranks(import_all, 1, tmp_path_factory.mktemp("published"), small_data)[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_imported(name: str, imported: dict[str, Any]) -> None:
    assert not isinstance(imported[name], str), imported[name]
    card, dtypes = imported[name]
    assert dtypes == ("F32" if "gpt2" in name else "F16")
    assert card.tensors.ignored == {"openai-community/gpt2": 2, "distilbert/distilgpt2": 1, "EleutherAI/pythia-70m": 6,
                                    "meta-llama/Llama-2-7b-hf": 2}.get(name, 0)  # fmt: skip
    assert card.logits.vocabulary == (512 if "pythia" in name else 384)


def test_a_copy_of_a_tied_head_is_left_out_by_block_too(imported: dict[str, Any]) -> None:
    assert imported["by block"].by_block
    assert imported["by block"].tensors == imported[TIED_TWICE][0].tensors
