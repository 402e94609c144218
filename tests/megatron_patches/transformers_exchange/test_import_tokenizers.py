"""A folder whose tokenizer lacks tokens of the run's: their rows are drawn by the run, and the import keeps its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.checkpoint.starting_point import TakenRows
from tests.megatron_patches.transformers_exchange.folders import make_folder, write_run
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

RUN = "tr900f-28K-more-tokens"
FREE, LAST = 379, 381
"""an id that the folder's tokenizer leaves free, and its last one"""


def take_tokens_away(path: Path) -> None:
    """Of a `tokenizer.json` whose merges each make one token."""
    tokenizer = json.loads(path.read_text())
    model = tokenizer["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number != FREE and number <= LAST}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    path.write_text(json.dumps(tokenizer))


def begin(place: Path, data: SmallData) -> dict[str, Any]:
    """What is taken before and after the import, and what lies in it."""
    from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
    from megatron_patches.artefacts.manifest import read_manifest
    from megatron_patches.launch.init_from.folder_import import with_imported_weights
    from megatron_patches.launch.init_from.resolution import find_starting_point
    from megatron_patches.run.reading import load_run
    from megatron_patches.transformers_exchange.import_plan import open_data

    os.environ |= {f"TRAINYARD_{name}": str(place / name.lower()) for name in ("RUNS", "CACHE", "DATA")}
    folder = make_folder(place / "model", "llama", data, vocab_size=LAST + 1)
    take_tokens_away(folder / "tokenizer.json")
    run = load_run(write_run(place / "tr900-tests", RUN, data, folder), ["--model.vocab_size=384"])
    opened = open_data(run)
    with contextlib.redirect_stderr(io.StringIO()):
        before = find_starting_point(str(folder), run, opened)
        imported = with_imported_weights(before, run)
    after = find_starting_point(str(folder), run, opened)
    manifest = read_manifest(Path(imported.weights.folder) / "manifest.json")
    identity = manifest.facts["identity"]
    assert isinstance(identity, dict)
    return {
        "rows": [each.weights.rows for each in (before, imported, after)],
        "after": after.lines[0],
        "tokenizers": (
            tokenizer_id(find_tokenizer(folder)),
            identity["tokenizer"],
            tokenizer_id(find_tokenizer(Path(imported.weights.folder) / "tokenizer")),
        ),
    }


@pytest.mark.slow
def test_tokens_that_the_folder_lacks(small_data: SmallData, tmp_path: Path) -> None:
    found = run_on_ranks(begin, 1, tmp_path, small_data)[0]
    taken = TakenRows(LAST + 1, ((0, FREE), (FREE + 1, LAST + 1)))
    for rows in found["rows"]:
        assert rows["embedding.tokens.table.weight"] == rows["head.logits.linear.weight"] == taken
    assert "by an earlier launch" in found["after"]
    assert len(set(found["tokenizers"])) == 1
