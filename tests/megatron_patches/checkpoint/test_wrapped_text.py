"""A masked LM that streams raw text in wrapped packs: stopped and gone on with, from the text or from disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.run_data import RunData
from data_tools.text.special_tokens import special_tokens
from data_tools.text.wordpiece_training import train_wordpiece
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.identity import differences, run_identity
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.reading import load_run
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_run import write_run
from tests.small_training import SmallData, train_launch
from tools.run_views.proof import prove
from tools.run_views.read_step import ReadStep

STEPS, SAVED = 6, 3
HERE = LaunchTarget(nodes=None, gpu=False, gpu_models=())
RUN = """
why: a run for tests
model: {{name: encoder, layers: 2, hidden_size: 32, attention_heads: 4, ffn_size: 96, vocab_size: 200}}
objective: {{name: masked_lm, probability: 0.3}}
data:
  text: {{path: "{folder}/documents", append_eod: false, shuffle_documents: 40}}
  tokenizer: {folder}/wordpiece
  samples: {{name: packs, wrapped: true}}
  sequence_length: 128
  max_epochs: 9
training: {{steps: 6, global_batch_size: 4, micro_batch_size: 2, precision: fp32, seed: 7}}
optimizer: {{name: adamw, learning_rate: 1e-2}}
schedule: {{name: cosine, warmup: 2, final_learning_rate: 1e-3}}
checkpoint: {{every_steps: 3}}
"""
EVALUATED = "--evaluation={every_steps: 3, samples: 2}"


@pytest.fixture(scope="module")
def folder(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, a WordPiece of theirs, `disk` (the documents, tokenized), and `ended`, each with [SEP] behind it."""
    found = tmp_path_factory.mktemp("wrapped")
    shutil.copytree(small_data.folder / "documents", found / "documents")
    documents = sorted((found / "documents").iterdir())
    train_wordpiece(documents, found / "wordpiece", 200)
    train_wordpiece(documents, found / "ending", 200, sep_ends_documents=True)
    preprocess(PreprocessRequest(inputs=documents, output=found / "disk", tokenizer=found / "wordpiece"))
    ended = PreprocessRequest(inputs=documents, output=found / "ended", tokenizer=found / "ending", append_eod=True)
    preprocess(ended)
    return found


def run_of(place: Path, folder: Path) -> Path:
    return write_run(place / "tr900-tests/tr900a-20K-wrapped.yaml", RUN.format(folder=folder))


def train(path: Path, *words: str) -> RunFolder:
    plan_run(path, words, HERE)
    launch = start_launch(load_run(path, words))
    run_on_ranks(train_launch, 1, str(launch.directory))
    return launch.run


def steps_of(run: RunFolder) -> list[dict[str, Any]]:
    return [event.facts for event in effective(read_events(run.events), "step")]


def test_going_on_is_exact_and_may_be_from_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    path = run_of(tmp_path, folder)
    run = train(path, EVALUATED)
    whole = steps_of(run)
    assert [step["step"] for step in whole] == list(range(1, STEPS + 1))
    for step in whole:
        assert 0 < step["padding"] < 0.3
        assert step["text_tokens_per_second"] == pytest.approx((1 - step["padding"]) * step["tokens_per_second"])
    log = next(run.logs.iterdir()).read_text()
    assert log.count(" padding ") == STEPS
    last = run.checkpoints / f"step-{STEPS:010d}"

    shutil.rmtree(last)
    train(path, EVALUATED)
    again = steps_of(run)
    for name in ("loss", "grad_norm", "delivered", "padding"):
        assert [step[name] for step in again] == [step[name] for step in whole], name

    shutil.rmtree(last)
    change = [{"from_step": SAVED, "sources": [{"name": "disk", "path": str(folder / "disk")}]}]
    train(path, EVALUATED, f"--data.changes={json.dumps(change)}")
    changed = steps_of(run)
    assert [step["loss"] for step in changed[:SAVED]] == [step["loss"] for step in whole[:SAVED]]
    assert {step["delivered"] for step in changed[SAVED:]}.isdisjoint(step["delivered"] for step in whole)
    proof = prove(run, None, lambda text: None)
    assert not proof.differs and not proof.incomplete
    assert sum(each.compared for each in proof.launches) >= STEPS
    special = special_tokens(folder / "wordpiece")
    samples = list(ReadStep(run, STEPS).samples(None))
    padding = np.mean([sample.content["segments"] < 0 for sample in samples])
    assert changed[-1]["padding"] == pytest.approx(padding, abs=1e-12) and padding > 0
    for sample in samples:
        shown = sample.content["tokens"][sample.content["segments"] >= 0]
        assert (shown[0], shown[-1]) == (special.cls, special.sep)
        assert len(sample.documents) == (shown == special.cls).sum()


def test_another_role_is_another_run(folder: Path, tmp_path: Path) -> None:
    """The tokenizer's id does not cover special_tokens_map.json, which may name the tokens around texts."""
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    shutil.copy(folder / "wordpiece/tokenizer.json", tokenizer)
    path = run_of(tmp_path, folder)
    words = ["--data.text=null", f"--data.path={tmp_path}/disk", f"--data.tokenizer={tokenizer}"]
    preprocess(PreprocessRequest(inputs=[folder / "documents"], output=tmp_path / "disk", tokenizer=tokenizer))
    config = load_run(path, words)

    def identity() -> dict[str, Any]:
        data = RunData(config.data, tmp_path, config.lengths)
        return run_identity(config, data.identity_for(config.objective.token_roles), data.tokenizer_id)

    saved = identity()
    (tokenizer / "special_tokens_map.json").write_text(json.dumps({"cls_token": "[MASK]"}))
    (told,) = differences(saved, identity(), config)
    assert told.startswith("tokenizer.roles is {mask: 4, cls: 2, sep: 3, pad: 0") and "cls: 4" in told


BPE = ["--data.text=null", "--data.path={small}/text", "--data.tokenizer={small}/tokenizer"]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            [*BPE, "--training.global_batch_size=3"],
            [
                "has no mask token, and objective masked_lm needs it; name mask_token in its tokenizer_config.json",
                "has no cls and no sep token, and data.samples.wrapped needs them",
                "training.global_batch_size 3",
            ],
        ),
        (["--evaluation={{every_steps: 3}}"], ["evaluation.samples is missing"]),
        (["--data.sequence_length=2"], ["set data.sequence_length to 3 or more"]),
        (
            ["--data.text=null", "--data.path={folder}/ended", "--data.tokenizer={folder}/ending"],
            ["is the tokenizer's sep token, and data.samples.wrapped adds another one; run tools/preprocess without"],
        ),
        (
            ["--data.text.append_eod=true", "--data.tokenizer={folder}/ending"],
            ["the documents of source data end with", "set its text.append_eod to false"],
        ),
    ],
    ids=["roles", "budget", "room", "dataset", "text"],
)
def test_what_cannot_be_is_told_together_before_anything_is_made(
    words: list[str],
    messages: list[str],
    folder: Path,
    small_data: SmallData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    filled = [word.format(folder=folder, small=small_data.folder) for word in words]
    with pytest.raises(TrainyardError) as raised:
        plan_run(run_of(tmp_path, folder), filled, HERE)
    for message in messages:
        assert str(raised.value).count(message) == 1, str(raised.value)
    assert not (tmp_path / "runs").exists()
