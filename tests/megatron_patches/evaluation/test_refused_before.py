"""What is refused of a checkpoint before a model is exported or loaded for it. Nothing is asked here."""

import json
import sys
from dataclasses import asdict
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
from megatron_patches.evaluation.tasks.fine_tuning import FineTuning
from megatron_patches.run.reading import to_yaml
from tests.megatron_patches.evaluation.encoders.tiny_encoder import encoder_run, write_word_task
from tests.small_training import SmallData, overrides


@pytest.fixture
def candidate(small_data: SmallData, tmp_path: Path) -> Candidate:
    """A checkpoint of a model that sees 16 tokens at once; without weights."""
    config = small_data.run(tmp_path, overrides(model__position_embedding="rotary"))
    folder = tmp_path / "runs" / config.name / "checkpoints" / checkpoint_name(8)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    return Candidate(folder, build_manifest("checkpoint", [], {"step": 8, "content": "weights"}))


@pytest.fixture
def encoder(tmp_path: Path) -> Candidate:
    """A checkpoint of an encoder; without weights."""
    config = encoder_run(tmp_path)
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


def test_what_is_for_encoders_alone(candidate: Candidate, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("some text")
    write_word_task(tmp_path / "words", 4, 2)
    for task in (f"pseudo-perplexity:{tmp_path}/some.txt", f"glue-sst2:{tmp_path}/words"):
        asked = Asked((task,))
        with pytest.raises(Refused, match=r": this is for encoders, .* \(causal\); ask for the perplexity of a text"):
            standing_of(run_of(candidate), candidate, asked.prepared(), asked)


def test_what_encoders_are_not_asked(encoder: Candidate, tmp_path: Path) -> None:
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps({"question": "2 + 3?", "answer": "#### 5"}))
    for task in (f"gsm8k:{tmp_path}/gsm8k.jsonl", "arithmetic"):
        asked = Asked((task,))
        with pytest.raises(
            Refused, match=r"was not trained to continue text \(masked LM.* it can be asked to fill in masked tokens"
        ):
            standing_of(run_of(encoder), encoder, asked.prepared(), asked)


def test_settings_of_fine_tuning_that_have_no_effect(tmp_path: Path) -> None:
    probe = FineTuning.given(True)
    with pytest.raises(Refused, match="no task of --tasks is one that a model is fine-tuned on"):
        Asked(("arithmetic",), fine_tuning=probe).prepared()
    task = f"glue-sst2:{write_word_task(tmp_path / 'words', 4, 2)}"
    with pytest.raises(Refused, match="glue-sst2: a model is fine-tuned in one process; leave out --tensor-parallel"):
        Asked((task,), tensor=2).prepared()
    with pytest.raises(Refused, match="glue-sst2: glue-sst2 is asked without solved items"):
        Asked((task,), shots=2).prepared()
    with pytest.raises(Refused, match=r"--learning-rate 2: give a number between 0 and 1"):
        FineTuning.given(False, learning_rate=2.0)
    with pytest.raises(Refused, match=r"--train-batch 0: give at least 1"):
        FineTuning.given(False, train_batch=0)
    asked = Asked((task,), fine_tuning=probe)
    assert Asked.of(json.loads(json.dumps(asdict(asked)))) == asked
