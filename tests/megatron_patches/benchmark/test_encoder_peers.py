"""What encoders are measured beside: transformers' EuroBERT, and the same documents padded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_tools.run_data import RunData
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.benchmark.comparison import AGREEMENT_OF_OTHERS, largest_difference
from megatron_patches.benchmark.padded import padded_launch, padded_samples, text_read
from megatron_patches.benchmark.transformers_encoder import IGNORED, collated, require_eurobert
from megatron_patches.benchmark.worker import Measurement, measure
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.report.text import as_text
from megatron_patches.run.reading import load_resolved, to_yaml
from megatron_patches.run.run_directory import Launch, start_launch
from tests.megatron_patches.benchmark.test_benchmark import FOUND
from tests.ranks import run_on_ranks
from tests.small_training import ENCODER, SmallData

WHOLE = ["--objective.reset_attention=false", "--data.samples=stream"]
SHORT = ["--data.samples=packs", "--data.sequence_length=256", "--data.max_epochs=4"]


def test_labels_stand_where_something_is_to_be_predicted() -> None:
    tokens = torch.tensor([[7, 4, 4, 9], [5, 6, 4, 8]])
    picked = torch.tensor([[1, 2], [2, 0]])  # the last place of the second sample is idle
    batch = MicroBatch(
        {"tokens": tokens, "picked": picked}, torch.tensor([[1, 2], [3, 5]]), torch.tensor([[0.4, 0.4], [0.2, 0]])
    )
    expected = [[IGNORED, 1, 2, IGNORED], [IGNORED, IGNORED, 3, IGNORED]]
    assert collated(batch).labels.tolist() == expected
    everywhere = torch.tensor([[0, 0.4, 0.4, 0], [0, 0, 0.2, 0]])
    whole = MicroBatch({"tokens": tokens}, torch.tensor([[7, 1, 2, 9], [5, 6, 3, 8]]), everywhere)
    assert collated(whole).labels.tolist() == expected


def test_padding_counts_for_nothing() -> None:
    # two turns of two steps after one of warm-up, 100 places a step
    read = text_read([2.0, 4.0], [0.9, 0.9, 0.0, 0.5, 0.2, 0.4], steps=2, places=100)
    assert read.rates == pytest.approx([(100 + 50) / 2, (80 + 60) / 4])
    assert read.share == pytest.approx((1 + 0.5 + 0.8 + 0.6) / 4)


def test_a_ratio_is_told_beside_the_shares_of_text() -> None:
    assert FOUND.peer is not None
    assert "shares of text" not in as_text(FOUND)
    told = as_text(replace(FOUND, peer=replace(FOUND.peer, name="padded", share_ratio=1.9)))
    assert "ours / peer 1.900; the ratio is 0.500 of it" in told


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("stream", "compares packs with padding"),
        ("{name: packs, longer: drop}", "--data.samples.longer cut"),
        ("{name: packs, filters: {minimum_tokens: 4}}", "filter pieces of documents"),
    ],
)
def test_what_padding_cannot_be_compared_with(
    samples: str, message: str, small_data: SmallData, tmp_path: Path
) -> None:
    config = small_data.run(tmp_path, [*ENCODER, f"--data.samples={samples}"])
    with pytest.raises(TrainyardError, match=message):
        padded_samples(config)


def test_the_padded_run_cuts_documents_as_packs_do(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path, [*ENCODER, "--data.samples={name: packs, answers_only: false}"])
    other = small_data.run(tmp_path, [*ENCODER, padded_samples(config)]).data.samples
    assert other.name == "windows"
    assert (other.model_dump()["answers_only"], other.model_dump()["balance_last"]) == (False, False)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("--model.mlp_bias=true", "model.attention_bias"),
        ("--model.activation=geglu", "model.activation"),
        ("--objective.reset_attention=true", "objective"),
        ("--data.samples=packs", "data.samples"),
        ("--model.position_embedding={name: rotary, fraction: 0.5}", "model.position_embedding"),
    ],
)
def test_what_eurobert_is_not(change: str, key: str, small_data: SmallData, tmp_path: Path) -> None:
    require_eurobert(small_data.run(tmp_path, [*ENCODER, *WHOLE]))
    with pytest.raises(TrainyardError, match=f"differs in {key};"):
        require_eurobert(small_data.run(tmp_path, [*ENCODER, *WHOLE, change]))


def measured(launch_directories: dict[str, str]) -> dict[str, Measurement]:
    """Each measurement, by its peer."""
    found = {}
    for peer, directory in launch_directories.items():
        launch = Launch(Path(directory))
        found[peer] = measure(load_resolved(launch.config), launch, alternations=4, warmup=0, steps=2, peer=peer)
    return found


def test_both_peers_learn_what_ours_learns(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    steps = ["--training.steps=9", "--checkpoint.every_steps=9", "--evaluation=null"]
    whole = start_launch(small_data.run(tmp_path, [*ENCODER, *WHOLE, *steps]))
    packs = small_data.run(tmp_path, [*ENCODER, *SHORT, *steps], name="tr900b-28K-small")
    packed = start_launch(packs)
    beside = padded_launch(packed)
    beside.directory.mkdir(parents=True)
    other = small_data.run(tmp_path, [*ENCODER, *SHORT, *steps, padded_samples(packs)], name="tr900b-28K-small")
    beside.config.write_text(to_yaml(other))
    for each in (packs, other):  # makes the plans, as a launch does before its ranks read them
        RunData(each.data, CHECKOUT, each.lengths, each.place_after).check(each.model.vocabulary, 72, 0)

    launches = {"transformers": str(whole.directory), "padded": str(packed.directory)}
    found = run_on_ranks(measured, 1, launches)[0]
    for peer, each in found.items():
        assert each.peer is not None
        assert len(each.ours.losses) == len(each.peer.losses) == 8
        assert largest_difference(each.ours.losses, each.peer.losses) < 2 * AGREEMENT_OF_OTHERS, peer
        assert each.peer.losses[-1] < each.peer.losses[0] - 0.1, peer
    assert found["transformers"].peer.padding == found["transformers"].ours.padding == [0.0] * 8
    ours, padded = (sum(side.padding) / 8 for side in (found["padded"].ours, found["padded"].peer))
    assert ours < padded - 0.1
