"""What is refused of a checkpoint before a model is exported or loaded for it. Nothing is asked here."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_patches.artefacts.evaluations.states import read_states
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.manifest import build_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused
from megatron_patches.evaluation.asked import Asked, standing_of
from megatron_patches.evaluation.one_checkpoint import OneCheckpoint
from megatron_patches.evaluation.selection import Candidate
from megatron_patches.run.reading import to_yaml
from tests.small_training import SmallData, overrides


@pytest.fixture
def candidate(small_data: SmallData, tmp_path: Path) -> Candidate:
    """A checkpoint of a model that sees 16 tokens at once; without weights."""
    config = small_data.run(tmp_path, overrides(model__position_embedding="rotary"))
    folder = tmp_path / "runs" / config.name / "checkpoints" / checkpoint_name(8)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    return Candidate(folder, build_manifest("checkpoint", [], {"step": 8, "content": "weights"}))


def run_of(candidate: Candidate) -> RunFolder:
    return RunFolder(candidate.folder.parents[1])


def test_answers_that_do_not_fit_what_the_model_sees(candidate: Candidate, tmp_path: Path) -> None:
    file = tmp_path / "gsm8k.jsonl"
    file.write_text(json.dumps({"question": "2 + 3?", "answer": "#### 5"}))

    def missing(**settings: Any) -> list[str]:
        asked = Asked((f"gsm8k:{file}", "arithmetic"), **settings)
        return [task.label for task in standing_of(run_of(candidate), candidate, asked.prepared(), asked).missing]

    with pytest.raises(Refused, match="gsm8k lets the model write 256 tokens, and it sees 16 at once"):
        missing()
    with pytest.raises(Refused, match="gsm8k lets the model write 256 tokens, and it sees 256 at once"):
        missing(length=256)
    assert missing(length=257) == ["gsm8k.length-257", "arithmetic.length-257"]


def test_a_task_whose_items_are_not_to_be_had_needs_no_export(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_for_items(task: Any, hear: Any) -> None:
        raise Refused("its dataset is not here\nbring it")

    def never(*_: object) -> None:
        raise AssertionError("a model is exported for nothing")

    monkeypatch.setitem(
        sys.modules, "megatron_patches.evaluation.harness.ask", SimpleNamespace(look_for_items=look_for_items)
    )
    monkeypatch.setattr(OneCheckpoint, "_export", never)
    heard: list[str] = []
    one = OneCheckpoint(run_of(candidate), candidate, Asked(("arc_easy",)), lambda result: None, heard.append)
    assert not one.evaluate()
    (state,) = read_states(run_of(candidate))
    assert (state.state, state.label, state.message) == ("failed", "arc_easy", "its dataset is not here; bring it")
    assert heard == ["error: arc_easy: its dataset is not here\nbring it"]
