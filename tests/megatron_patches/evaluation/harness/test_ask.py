"""What becomes of lm-eval's results, with a model whose answers are known; what is refused; what is left as it was."""

import logging
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from lm_eval.api.model import TemplateLM

from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.evaluation.harness import surroundings
from megatron_patches.evaluation.harness.ask import ask
from megatron_patches.evaluation.tasks.outcome import Outcome
from megatron_patches.evaluation.tasks.task import TaskSettings
from tests.megatron_patches.evaluation.harness.tiny_tasks import configurations, harness_task, write_files


class Known(TemplateLM):
    """A token is a word; a text is as likely as it is told to be, and answers are what they are told to be."""

    max_length, max_gen_toks, batch_size_per_gpu, precision, eot_token_id = 2048, 256, 1, "bf16", 0

    def __init__(self, likelihood: Callable[[str], float] = lambda text: -float(len(text)), writes: str = "b") -> None:
        super().__init__()
        self._likelihood, self._writes = likelihood, writes

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return [len(word) for word in string.split()]

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        print("progress")
        print("noise", file=sys.stderr)
        logging.getLogger("lm_eval.models.known").warning("a task's own warning")
        random.random()
        return [(self._likelihood(asked[1]), False) for asked, _, _ in requests]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        return [self._likelihood(*each.args) for each in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        return [self._writes for _ in requests]


def answer(config: Mapping[str, Any], model: Known | None = None, **given: Any) -> Outcome:
    (outcome,) = ask(
        model or Known(), [harness_task(config, **given)], "export", None, given.get("hear", lambda text: None)
    )
    return outcome


def of_rows(rows: Sequence[Mapping[str, Any]], **settings: Any) -> dict[str, Any]:
    """A choice among these rows' endings, which no file holds."""
    made = datasets.Dataset.from_list([dict(row) for row in rows])
    return {
        "task": "rows", "custom_dataset": lambda **kwargs: {"test": made}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "ctx", "doc_to_target": "label", "doc_to_choice": "endings",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}], "metadata": {"version": 1},
        **settings,
    }  # fmt: skip


ROWS = [
    {"ctx": "one", "endings": ["a", "bb cc"], "label": 0, "of": "x"},
    {"ctx": "two", "endings": ["ccc", "d"], "label": 0, "of": "y"},
    {"ctx": "one", "endings": ["a", "bb cc"], "label": 0, "of": "x"},
    {"ctx": "six", "endings": ["eeeee", "f g h i"], "label": 1, "of": "y"},
]


def test_items_have_ids_that_no_model_decides() -> None:
    config = of_rows(ROWS)
    shortest, longest = answer(config), answer(config, Known(lambda text: float(len(text))))
    ids = [item.id for item in shortest.items]
    assert [item.id for item in longest.items] == ids and len(set(ids)) == 4
    assert ids[2] == f"{ids[0]}-2" and all(len(each) == 16 for each in (ids[0], ids[1], ids[3]))
    assert [item.answer for item in shortest.items] == ["0", "1", "0", "0"]
    assert [item.answer for item in longest.items] == ["1", "0", "1", "1"]
    assert {item.target for item in shortest.items} == {"0", "1"}
    assert shortest.examples == 4 and shortest.precision == "bf16"
    assert answer(of_rows(ROWS[::-1])).items[2].id == ids[1], "an id depends on where its item stands"


def test_parts_clusters_and_tokens() -> None:
    given = answer(
        of_rows(ROWS), Known(), by_token=True, part_of=lambda row: row["of"], cluster_of=lambda row: row["ctx"],
        chance={"acc": 0.3},
    )  # fmt: skip
    # endings of -2 and -6 (two words, -3 a word); -4, -2; again; -6, -8 (four words, -2 a word)
    assert [item.metrics for item in given.items] == [
        {"acc": 1.0, "acc_norm_token": 1.0}, {"acc": 0.0, "acc_norm_token": 0.0},
        {"acc": 1.0, "acc_norm_token": 1.0}, {"acc": 0.0, "acc_norm_token": 1.0},
    ]  # fmt: skip
    assert [(item.part, item.cluster) for item in given.items] == [
        ("x", "one"),
        ("y", "two"),
        ("x", "one"),
        ("y", "six"),
    ]
    assert (given.metrics["acc"].value, given.metrics["acc"].chance) == (0.5, 0.3)
    by_token = given.metrics["acc_norm_token"]
    assert by_token.value == 0.75 and by_token.chance == 0.5
    assert by_token.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert {part: (each.examples, each.metrics["acc"].value) for part, each in given.parts.items()} == {
        "x": (2, 1.0), "y": (2, 0.0)
    }  # fmt: skip
    of_part = given.parts["y"].metrics["acc_norm_token"]
    assert (of_part.value, of_part.standard_error) == (0.5, pytest.approx(0.5))


def test_filters_are_joined_and_limits_and_shots_kept(tmp_path: Path) -> None:
    write_files(tmp_path / "items")
    config = configurations(tmp_path / "items")["sums"]
    given = answer(config, Known(writes="x ba"), settings=TaskSettings(limit=4, shots=1))
    assert (given.examples, given.shots, given.task.label) == (4, 1, "sums.1-shot.limit-4")
    targets = [item.target for item in given.items]
    assert [item.metrics for item in given.items] == [
        {"exact_match.strict": float(target == "b"), "exact_match.flexible": 0.0} for target in targets
    ]
    assert {item.answer for item in given.items} == {"x ba"}
    assert given.metrics["exact_match.strict"].value == targets.count("b") / 4
    group = answer(configurations(tmp_path / "items")["subjects"], settings=TaskSettings(limit=2))
    assert group.examples == 6 and group.shots == 0
    assert {part: each.examples for part, each in group.parts.items()} == {"anatomy": 2, "law": 2, "physics": 2}
    assert len({item.id for item in group.items}) == 6


def test_perplexities_that_are_no_numbers_are_left_out_and_said(tmp_path: Path) -> None:
    write_files(tmp_path / "items")
    config = configurations(tmp_path / "items")["text"]
    heard: list[str] = []
    (given,) = ask(Known(lambda text: -1e4 * len(text)), [harness_task(config)], "export", None, heard.append)
    assert given.metrics.keys() == {"bits_per_byte"}
    assert given.metrics["bits_per_byte"].value == pytest.approx(1e4 / math.log(2))
    for name in ("word_perplexity", "byte_perplexity", "perplexity"):
        assert any(f"text: {name} is" in text and "left out" in text for text in heard)
    ordinary = answer(config)
    lengths = [int(item.metrics["bytes"]) for item in ordinary.items]
    words = sum(item.metrics["tokens"] for item in ordinary.items)
    assert ordinary.metrics["perplexity"].value == pytest.approx(math.exp(sum(lengths) / words))
    assert ordinary.metrics["word_perplexity"].value == pytest.approx(math.exp(sum(lengths) / words))
    assert [item.metrics["bits_per_byte"] for item in ordinary.items] == pytest.approx([1 / math.log(2)] * 3)
    assert all(item.target is None and item.answer is None for item in ordinary.items)


def test_a_perplexity_of_endings_leaves_log_likelihoods_to_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr("lm_eval.api.metrics.bootstrap_stderr", lambda function, values, iters: float(iters))
    metrics = [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}]
    config = of_rows(
        ROWS, output_type="loglikelihood", doc_to_target="{{endings[0]}}", doc_to_choice=None, metric_list=metrics
    )
    given = answer(config)
    assert [item.metrics for item in given.items] == [{"log_likelihood": -float(count)} for count in (1, 3, 1, 5)]
    found = given.metrics["perplexity"]
    assert (found.value, found.standard_error, found.higher_is_better) == (pytest.approx(math.exp(2.5)), 1e5, False)


def test_a_model_that_diverged_is_no_result() -> None:
    with pytest.raises(Damaged, match="no numbers: its training diverged"):
        answer(of_rows(ROWS), Known(lambda text: math.nan))


def test_nothing_is_left_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "items")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[union-attr]
    settings = datasets.config.HF_DATASETS_CACHE, datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    logger = logging.getLogger("lm_eval")
    logs = logger.level, logger.propagate, list(logger.handlers)
    for _ in ask(Known(), [harness_task(configurations(tmp_path / "items")["choice"])], "export", None, print):
        pass
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "choice: reading its items", "choice: asking 12 items", "lm-eval warns: a task's own warning"
    ]  # fmt: skip
    assert err == ""
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[union-attr]
    assert settings == (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
    assert logs == (logger.level, logger.propagate, list(logger.handlers))
    files = (
        [path for path in Path(settings[0]).rglob("*") if "choice" in path.name] if Path(settings[0]).exists() else []
    )
    assert files == []


@pytest.mark.parametrize(
    "raised",
    [
        ConnectionError("no route"), OfflineModeIsEnabled("offline mode"), FileNotFoundError("not on the hub"),
        ValueError("Couldn't find cache for Rowan/hellaswag for config 'default'"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_dataset_that_cannot_be_had_is_told_with_what_serves(
    raised: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **settings: object) -> Any:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Refused) as error:
        list(ask(Known(), [harness_task("hellaswag")], "export", None, lambda text: None))
    for part in ("hellaswag: the dataset Rowan/hellaswag is not", "--tasks hellaswag:FILE.jsonl", "HF_HOME=FOLDER"):
        assert part in str(error.value)
    assert max(map(len, str(error.value).splitlines())) <= 100


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            asked.append(timeout)
            raise OSError("no route")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(surroundings, "get_session", Session)
    with surroundings.hub_if_reached():
        assert constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE and asked == [5.0]


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"unsafe_code": True}, "runs code that the model writes"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "asks for the code of a dataset"),
        ({"doc_to_image": "picture"}, "pictures or sound"),
        ({"doc_to_choice": "nothing_of_the_kind ("}, "lm-eval cannot load rows"),
    ],
)
def test_what_is_not_asked(changes: Mapping[str, Any], told: str) -> None:
    for config in (of_rows(ROWS, **changes), {"group": "all", "task": [of_rows(ROWS, **changes)]}):
        with pytest.raises(TrainyardError, match=told.replace("rows", "(rows|all)")):
            answer(config)


def test_shots_where_there_can_be_none_are_refused() -> None:
    with pytest.raises(Refused, match=r"takes no shots .* 3 are asked for"):
        answer(of_rows(ROWS, num_fewshot=0), settings=TaskSettings(shots=3))
