"""What is said of a run of a second architecture before it starts: no product file knows of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_patches.checkpoint.identity import differences, run_identity
from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.activations import activations
from megatron_patches.estimate.communication import blocks_by_stack, estimate_traffic
from megatron_patches.estimate.memory import estimate_memory
from megatron_patches.estimate.report import Machines, estimate
from megatron_patches.estimate.step_time import data_sheet_speeds
from megatron_patches.estimate.text import as_text
from megatron_patches.hardware.machines import hardware_named
from megatron_patches.parameters.row import layer_of, of_any_block, stack_of
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.moment_table import moment_shapes
from megatron_patches.run.parameter_count import active_parameters, count_parameters
from megatron_patches.run.reading import load_resolved, to_yaml
from megatron_patches.run.summary import describe_run
from megatron_patches.tuning.candidates import candidates
from tests.ranks import run_on_ranks
from tests.second_architecture.register import register_all, registered
from tests.second_architecture.run import bytes_kept, two_stacks_run
from tests.small_training import SmallData, overrides
from tools.commands.runs.reference import reference
from tools.commands.runs.show import view_run

A100 = hardware_named("A100-80GB")
GPT = "--model={name: gpt, layers: 4, hidden_size: 32, attention_heads: 4, ffn_size: 64, vocab_size: 384}"
MUON = "--optimizer={name: muon, learning_rate: 1e-2, rest: {learning_rate: 1e-2}}"
ADAFACTOR = "--optimizer={name: adafactor, learning_rate: 1e-2}"
WIDTH, FEATURES, VOCABULARY, HEADS, BUCKETS = 32, 64, 384, 4, 8

DATA = {"dataset": "data"}


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """Of this module's tests alone."""
    with registered():
        yield


@pytest.fixture
def run(small_data: SmallData, tmp_path: Path):  # type: ignore[no-untyped-def]
    def with_overrides(*arguments: str, **settings: object) -> RunConfig:
        return two_stacks_run(small_data, tmp_path, [*arguments, *overrides(**settings)])

    return with_overrides


def test_a_blocks_name_holds_its_stack() -> None:
    name = "encoder.layers.3.mlp.up.linear.weight"
    assert layer_of(name) == "encoder.layers.3"
    assert stack_of(layer_of(name)) == "encoder.layers"
    assert of_any_block(name) == "encoder.layers.*.mlp.up.linear.weight"


def test_registering_twice_changes_nothing(run) -> None:  # type: ignore[no-untyped-def]
    before = run()
    register_all()
    assert run() == before


def test_parameters_and_flops(run) -> None:  # type: ignore[no-untyped-def]
    config = run(objective__encoder_share=0.5)
    attention, mlp = 4 * WIDTH**2, 2 * WIDTH * FEATURES + WIDTH + FEATURES
    by_part = {
        "embedding": VOCABULARY * WIDTH, "relative_bias": HEADS * BUCKETS, "attention": (3 + 2 * 2) * attention,
        "mlp": 5 * mlp, "norms": (3 * 2 + 2 * 3 + 2) * WIDTH,
    }  # fmt: skip
    assert count_parameters(config.model, config.lengths).by_part == by_part
    assert active_parameters(config.model, config.lengths) == sum(by_part.values()) - HEADS * BUCKETS
    # of as many tokens in each stack a token that counts meets every matrix once: 6 N, and attention on top
    matrices = sum(by_part[part] for part in ("embedding", "attention")) + 5 * 2 * WIDTH * FEATURES
    scores = 12 * WIDTH * 8 * (3 + 2 * 2)
    assert config.flops.palm == 6 * matrices + scores
    assert config.flops.causal < config.flops.palm == config.flops.computed
    again = run(objective__encoder_share=0.5, training__recomputation="full").flops
    assert again.palm == config.flops.palm and 1.2 < again.computed / config.flops.computed < 4 / 3


def test_lengths(run) -> None:  # type: ignore[no-untyped-def]
    config = run()
    lengths = config.lengths
    assert (lengths.read, lengths.stride, lengths.counted) == (17, 16, 4)
    assert (lengths.of("encoder"), lengths.of("decoder"), lengths.seen) == (12, 4, 16)
    assert config.timetable.end.tokens == 8 * 12 * 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"parallel__pipeline": 2}, [{"encoder.layers": 3}, {"decoder.layers": 2}]),
        ({"parallel__pipeline": 3}, [{"encoder.layers": 2}, {"encoder.layers": 1, "decoder.layers": 1},
                                     {"decoder.layers": 1}]),
        ({"parallel__pipeline": 2, "model__encoder_blocks": 1, "model__decoder_blocks": 3},
         [{"encoder.layers": 1, "decoder.layers": 1}, {"decoder.layers": 2}]),
        ({"parallel__pipeline": 2, "model__decoder_blocks": 1},
         [{"encoder.layers": 2}, {"encoder.layers": 1, "decoder.layers": 1}]),
    ],
)  # fmt: skip
def test_stages(arguments: dict[str, int], expected: list[dict[str, int]], run) -> None:  # type: ignore[no-untyped-def]
    """The table of distances is on the stage of each block that it is in front of."""
    stages = run(**arguments).stages
    assert [stage.blocks_by_stack for stage in stages] == expected
    for stage in stages:
        blocks = [place for place, name in enumerate(stage.layers) if name.startswith("encoder.layers.")]
        assert all(place > 0 and stage.layers[place - 1] == "relative_bias" for place in blocks)
        assert stage.names.count("relative_bias") == bool(blocks)


def test_what_is_said_of_a_run(run) -> None:  # type: ignore[no-untyped-def]
    config = run(parallel__pipeline=3)
    assert dict(describe_run(config))["model"] == (
        "3 + 2 blocks, width 32, 4 heads, relative bias of 8 buckets in the encoder, relu 64"
    )
    view = view_run(config, 6)
    assert dict(view.headlines())["stages"] == "2 x 2, 1 blocks; 24,800 to 33,184 parameters on a stage"
    assert view.stages()[0][1] == "embedding, relative_bias, encoder.layers.0 to encoder.layers.1"
    assert ("relative bias", 32, "0.1%") in view.parts()
    told = json.loads(json.dumps(view.as_json()))
    assert told["config"]["model"]["name"] == "two_stacks" and told["parameters"]["total"] == 62_400
    assert [stage["blocks"] for stage in told["stages"]] == [2, 2, 1]
    headings = [section.heading for section in reference("model.encoder_blocks")]
    assert len(headings) == 1 and "two_stacks" in headings[0]


def test_its_estimate(run) -> None:  # type: ignore[no-untyped-def]
    config = run(parallel__pipeline=3)
    layout = plan_layout(config, 6)
    found = estimate(config, layout, Machines(1, 6, A100), data_sheet_speeds(A100, "fp32"))
    assert found.parameters == 62_400 and found.memory.largest.stage == 1
    assert "3 + 2 blocks, width 32" in as_text(found)
    assert json.loads(json.dumps(found.as_json()))["duration"]["tokens_per_second"] > 0
    # an encoder's block sums up twice in each direction, a decoder's three times; the embedding and the head once
    config = run(parallel__tensor=2)
    layout = plan_layout(config, 2)
    tensor, *others = estimate_traffic(config, layout, estimate_memory(config, layout).largest, 2)
    assert not others
    assert tensor.messages == 4 * (2 * (3 * 2 + 2 * 3) + 2)
    assert {each.pipeline for each in candidates(config, 4, 4)} == {1, 2, 4}


def test_activations_are_within_a_tenth_of_what_is_alive(run) -> None:  # type: ignore[no-untyped-def]
    sizes = {"model__width": 64, "model__features": 256, "model__buckets": 16, "data__sequence_length": 96}
    for ranks, layout in ((1, {}), (2, {"parallel__tensor": 2})):
        shared = [{}, {"parallel__sequence_parallel": "true"}] if ranks == 2 else [{}]
        configs = [
            run(**sizes, **layout, **each, training__recomputation=kind, training__micro_batch_size=4, **dropout)
            for each in shared
            for kind in ("none", "selective", "full")
            for dropout in ({}, {"model__dropout": 0.1})
        ]
        for config, alive in zip(configs, run_on_ranks(bytes_kept, ranks, configs)[0], strict=True):
            kept = activations(config, plan_layout(config, ranks), device="cpu")
            blocks = sum(count * kept.blocks[stack] for stack, count in blocks_by_stack(config).items())
            assert kept.stem + blocks + kept.head + kept.logits == pytest.approx(alive, rel=0.1)


def test_moments(run) -> None:  # type: ignore[no-untyped-def]
    """Tables are no matrices inside blocks; keys and values are two matrices in one."""
    names = ("relative_bias.weight", "decoder.layers.0.cross_attention.key_value.linear.weight")
    for optimizer, table, matrix in (
        (MUON, {"exp_avg": (4, 8), "exp_avg_sq": (4, 8)}, {"momentum_buffer": (4, 2, 8, 32)}),
        (ADAFACTOR, {"second_moment_rows": (4,), "second_moment_columns": (1, 8)},
         {"second_moment_rows": (64,), "second_moment_columns": (2, 32)}),
    ):  # fmt: skip
        config = run(optimizer)
        rows = {row.name: row for row in config.parameters}
        assert [moment_shapes(config, rows[name]) for name in names] == [table, matrix]


def test_a_resolved_run_is_read_back_and_identified(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = run()
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_resolved(tmp_path / "config.yaml") == config
    saved = run_identity(config, DATA, "tokenizer")
    assert differences(saved, run_identity(run(parallel__pipeline=2), DATA, "tokenizer"), config) == []
    found = differences(saved, run_identity(run(model__buckets=16), DATA, "tokenizer"), config)
    assert found == ["model.buckets is 8 in the checkpoint and 16 now"]
    older = {key: value for key, value in saved.items() if key != "model.buckets"}
    assert differences(older, saved, config) == [], "a key that did not exist had its default"


def test_patterns_of_names(run) -> None:  # type: ignore[no-untyped-def]
    config = run("--training.frozen=['encoder.layers.*', 'relative_bias.*']")
    assert dict(describe_run(config))["parameters"].startswith("62,400, of which 37,312 ")
    with pytest.raises(TrainyardError, match=r"encoder\.layer\.\* fits no parameter; nearest: encoder\.layers\.\*\."):
        run("--training.frozen=['encoder.layer.*']")
    with pytest.raises(TrainyardError, match=r"nothing to train in pipeline stage 1 of 2, which holds decoder\.layers"):
        run("--training.frozen=['decoder*', 'embedding*']", parallel__pipeline=2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.widht=32"], ["model.widht is not a known key; nearest: model.width"]),
        (["--model.hidden_size=32"], ["model.name two_stacks has no such key"]),
        (["--model.name=three_stacks"], ["is not known; it is one of gpt, encoder, two_stacks"]),
        (["--parallel.tensor=3"], ["model.heads 4 is not divisible by parallel.tensor 3",
                                   "model.features 64 is not divisible by parallel.tensor 3",
                                   "nearest parallel.tensor that works: 2 or 4", "nearest model.features: 63 or 66"]),
        (["--parallel.pipeline=6"], ["more than the 5 blocks (encoder.layers and decoder.layers); use at most 5"]),
        (["--data.sequence_length=20", "--parallel.tensor=2", "--parallel.sequence_parallel=true"],
         ["gives 15 positions of encoder and 5 positions of decoder, not divisible by parallel.tensor 2",
          "nearest data.sequence_length: 18 or 22"]),
        (["--objective=causal"], ["objective causal does not go with model two_stacks: the model reads decoder_tokens, "
                                  "encoder_tokens, which the objective does not give; the objective gives tokens"]),
        ([GPT], ["objective second_half does not go with model gpt: the model reads tokens"]),
        (["--training.attention_kernel=flash"], ["training.attention_kernel flash gives the encoder"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(arguments: list[str], named: list[str], run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TrainyardError) as refused:
        run(*arguments)
    for text in named:
        assert text in str(refused.value)


def test_a_model_of_the_usual_kind_keeps_its_keys_when_it_is_named(small_data: SmallData, tmp_path: Path) -> None:
    register_all()
    assert small_data.run(tmp_path, ["--model={name: gpt, layers: 3}"]).model.hidden_size == 32
