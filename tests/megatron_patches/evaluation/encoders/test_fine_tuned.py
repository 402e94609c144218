"""A small encoder is fine-tuned on a task that it can learn, on labels that nothing tells, and where it is broken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_patches.evaluation.encoders.scores import pearson
from megatron_patches.evaluation.tasks.encoder_tasks import FineTuningTask
from megatron_patches.evaluation.tasks.fine_tuning import FineTuning
from megatron_patches.evaluation.tasks.prepare import prepare
from megatron_patches.evaluation.tasks.spec import parse_task
from megatron_patches.evaluation.tasks.task import TaskSettings
from tests.megatron_patches.evaluation.encoders.tiny_encoder import save_encoder, write_word_task
from tests.ranks import run_on_ranks

WHOLE: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 6}


def task(text: str, frozen: bool = False, **settings: Any) -> FineTuningTask:
    found = prepare(parse_task(text), TaskSettings(fine_tuning=FineTuning.given(frozen, **settings)))
    assert isinstance(found, FineTuningTask)
    return found


def outcomes(folder: Path, files: Path) -> dict[str, Any]:
    """All that one process finds: to start it takes longest."""
    import torch

    from megatron_patches.errors import Damaged
    from megatron_patches.evaluation.encoders.fine_tuned import fine_tuned
    from megatron_patches.evaluation.encoders.learning import Rows, learn_and_ask
    from megatron_patches.evaluation.encoders.trunk import load_trunk
    from megatron_patches.generation.loaded_model import start_alone

    groups = start_alone()

    def asked(text: str, frozen: bool = False, **settings: Any) -> Any:
        return fine_tuned(folder, task(text, frozen, **settings), groups, lambda text: None)

    words, shuffled = f"glue-sst2:{files / 'words'}", f"glue-sst2:{files / 'shuffled'}"
    found = {
        "words": asked(words, **WHOLE),
        "again": asked(words, **WHOLE),
        "means": asked(words, pooling="mean", seeds=2, **WHOLE),
        "first mean": asked(words, pooling="mean", **WHOLE),
        "shuffled": asked(shuffled, learning_rate=3e-3, epochs=2),
        "probe": asked(words, frozen=True, pooling="mean"),
        "probe of shuffled": asked(shuffled, frozen=True),
        "scores": asked(f"glue-stsb:{files / 'dev.jsonl'}+{files / 'train.jsonl'}", pooling="mean", **WHOLE),
        "parts": asked(f"glue-mnli:{files / 'parts'}", frozen=True),
    }
    trunk = load_trunk(folder, None, groups)
    for parameter in trunk.model.parameters():
        torch.nn.init.zeros_(parameter)
    rows = Rows([[2, 5, 3], [2, 6, 3]] * 8, torch.tensor([0.0, 1.0] * 8))
    (broken,) = learn_and_ask(trunk, rows, rows.texts, 2, FineTuning.given(True))
    for parameter in trunk.model.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    with pytest.raises(Damaged, match=r"fine-tuning from seed 0 diverged at step 1 of 3: its loss is no number; lower"):
        list(learn_and_ask(trunk, rows, rows.texts, 2, FineTuning()))
    return {**found, "broken": broken.numpy()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("fine-tuned")
    write_word_task(folder / "words")
    write_word_task(folder / "shuffled", shuffled=True)
    for name, rows in (("train", 100), ("dev", 40)):
        lines = []
        for number in range(rows):
            pair = ["sun " * (number % 5 + 1), "moon rain"]
            lines.append(json.dumps({"sentence1": pair[0], "sentence2": pair[1], "label": float(number % 5)}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "parts").mkdir()
    for name, rows in (("train", 12), ("validation_matched", 6), ("validation_mismatched", 3)):
        lines = [json.dumps({"premise": "sun", "hypothesis": "moon", "label": number % 3}) for number in range(rows)]
        (folder / "parts" / f"{name}.jsonl").write_text("\n".join(lines))
    result: dict[str, Any] = run_on_ranks(outcomes_with_checkpoint, 1, folder)[0]
    return result


def outcomes_with_checkpoint(folder: Path) -> dict[str, Any]:
    return outcomes(save_encoder(folder / "encoder"), folder)


def test_what_can_be_learned_is_learned(found: dict[str, Any]) -> None:
    metric = found["words"].metrics["acc"]
    assert metric.value >= 0.9
    assert metric.chance == 0.5
    assert metric.standard_error == pytest.approx(np.sqrt(metric.value * (1 - metric.value) / 59))
    assert found["probe"].metrics["acc"].value >= 0.65


@pytest.mark.parametrize("name", ["shuffled", "probe of shuffled"])
def test_labels_that_nothing_tells_are_guessed(found: dict[str, Any], name: str) -> None:
    assert abs(found[name].metrics["acc"].value - 0.5) < 0.2  # three standard errors of 60 guesses


def test_an_encoder_that_gives_nothing_tells_nothing(found: dict[str, Any]) -> None:
    said = found["broken"]
    assert np.ptp(said, axis=0).max() == 0


def test_a_seed_decides_all(found: dict[str, Any]) -> None:
    one, other = found["words"], found["again"]
    assert one.metrics == other.metrics
    assert one.items == other.items


def test_several_seeds_give_their_mean_and_spread(found: dict[str, Any]) -> None:
    both, first = found["means"].metrics, found["first mean"].metrics["acc"].value
    second = 2 * both["acc"].value - first
    assert both["acc_spread"].value == pytest.approx(abs(first - second) / np.sqrt(2))
    items = [item.metrics["acc"] for item in found["means"].items]
    assert set(items) <= {0.0, 0.5, 1.0}
    assert np.mean(items) == pytest.approx(both["acc"].value)


def test_scores_are_learned(found: dict[str, Any]) -> None:
    result = found["scores"]
    said = np.array([float(item.answer) for item in result.items])
    wanted = np.array([float(item.target) for item in result.items])
    assert result.metrics["pearson"].value > 0.8
    assert result.metrics["pearson"].value == pytest.approx(pearson(said, wanted), abs=1e-3)
    errors = [item.metrics["squared_error"] for item in result.items]
    assert result.metrics["squared_error"].value == pytest.approx(np.mean(errors))
    assert not result.metrics["squared_error"].higher_is_better


def test_parts_have_numbers_of_their_own(found: dict[str, Any]) -> None:
    result = found["parts"]
    assert {name: part.examples for name, part in result.parts.items()} == {"matched": 6, "mismatched": 3}
    of_items = [item.metrics["acc"] for item in result.items if item.part == "mismatched"]
    assert result.parts["mismatched"].metrics["acc"].value == pytest.approx(np.mean(of_items))
    assert len({item.id for item in result.items}) == 9


def test_the_definition_has_every_setting(tmp_path: Path) -> None:
    text = f"glue-sst2:{write_word_task(tmp_path / 'words', 4, 2)}"
    usual = task(text)
    others = [
        task(text, epochs=2), task(text, learning_rate=1e-5), task(text, train_batch=8), task(text, pooling="mean"),
        task(text, seeds=2), task(text, frozen=True),
    ]  # fmt: skip
    assert len({usual.definition, *(each.definition for each in others)}) == 7
    write_word_task(tmp_path / "words", 6, 2)
    assert task(text).definition != usual.definition
    assert usual.definition == usual.definition


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_what_is_no_number_is_no_prediction(number: str) -> None:
    import torch

    from megatron_patches.errors import Damaged
    from megatron_patches.evaluation.encoders.fine_tuned import predictions

    said = torch.tensor([[0.0, 1.0], [2.0, 0.5]])
    assert predictions(said, 2).tolist() == [1.0, 0.0]
    said[1, 0] = float(number)
    with pytest.raises(Damaged, match="is no number; lower --learning-rate"):
        predictions(said, 2)
