"""A run in a few lines, as a launch and `tools/runs show` print it."""

import pytest

from megatron_patches.checkout import CHECKOUT
from megatron_patches.models.pipeline_partition import Stage
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.reading import load_run
from megatron_patches.run.summary import aligned, describe_layout, describe_run, describe_stages

TR11 = CHECKOUT / "train" / "tr11-176B-ml" / "tr11-176B-ml.yaml"
TR0 = CHECKOUT / "train" / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml"


def test_a_run_that_grows_its_batch_over_a_pipeline() -> None:
    config = load_run(TR11)
    lines = dict([*describe_run(config), *describe_layout(config, plan_layout(config, 384))])
    assert lines["model"].startswith("70 blocks, width 14336, 112 heads, alibi, gelu_tanh 57344, layernorm")
    assert lines["tokens"] == "450,558,263,296 in 115,311 steps of 4,194,304 (first 393,216)"
    assert lines["optimizer"] == "adamw, betas 0.9 and 0.95, weight decay 0.1, gradient clip 1"
    assert lines["precision"] == "bf16, full recomputation"
    assert lines["layout"] == "384 processes = tensor 4 x pipeline 12 x data 8, ZeRO 1"
    # as its public README says: the first and the last stage hold a block less, beside embedding and head
    assert lines["stages"].startswith("5, 10 x 6, 5 blocks; ")
    assert lines["batch ramp"].startswith("192 samples at first, 16 more each time, 2048 from step 12,659 on")


def test_what_a_run_has_not_is_not_said() -> None:
    config = load_run(TR0, ["--optimizer.weight_decay", "0", "--optimizer.gradient_clip", "0"])
    lines = dict([*describe_run(config), *describe_layout(config, plan_layout(config, 2))])
    assert not {"stages", "batch ramp"} & lines.keys()
    assert lines["optimizer"] == "adamw, betas 0.9 and 0.95, no gradient clip"
    assert lines["precision"] == "fp32"


def test_parameters_that_are_left_out_are_said() -> None:
    config = load_run(TR0, ["--training.trainable", "['*.bias']", "--optimizer.weight_decay", "0"])
    table = config.parameters
    total, biases = (sum(row.elements for row in table if row.name.endswith(end)) for end in ("", ".bias"))
    line = dict(describe_run(config))["parameters"]
    assert line == f"{total:,}, of which {biases:,} ({100 * biases / total:.2f}%) are trained"
    assert dict(describe_run(load_run(TR0)))["parameters"] == f"{total:,}"


def test_the_second_rate_of_muon_is_said() -> None:
    config = load_run(TR0, ["--optimizer", "{name: muon, learning_rate: 2e-2, rest: {learning_rate: 3e-4}}"])
    expected = "muon, gradient clip 1, embeddings, head and vectors by adamw at 0.0003"
    assert dict(describe_run(config))["optimizer"] == expected


def test_other_precisions() -> None:
    fp16 = load_run(TR0, ["--training.precision", "fp16", "--training.recomputation", "selective"])
    assert dict(describe_run(fp16))["precision"] == "fp16, loss scale from 65,536, selective recomputation"


def test_sequence_parallelism_is_said() -> None:
    config = load_run(TR0, ["--parallel.sequence_parallel", "true"])
    assert dict(describe_layout(config, plan_layout(config, 2)))["layout"].endswith("ZeRO 1, sequence parallel")


def stage(blocks: int, parameters: int) -> Stage:
    return Stage(tuple(f"layers.{number}" for number in range(blocks)), parameters)


def test_stages() -> None:
    assert describe_stages([stage(2, 7), stage(2, 7)]) == "2 x 2 blocks; 7 parameters on a stage"
    uneven = [stage(3, 9), stage(4, 8), stage(4, 8)]
    assert describe_stages(uneven) == "3, 2 x 4 blocks; 8 to 9 parameters on a stage"


def test_long_texts_are_wrapped_beneath_themselves() -> None:
    lines = [("run", "tr0"), ("why", "words " * 12 + "tr6b-350M-prefix-lm")]
    assert aligned(lines).count("\n") == 1
    wrapped = aligned(lines, 60).splitlines()
    assert max(map(len, wrapped)) <= 60
    assert all(line.startswith(" " * 17) for line in wrapped[2:])
    assert "tr6b-350M-prefix-lm" in aligned(lines, 60)  # no name is broken at its hyphens


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["--data.samples=packs"], True),
        (["--data.samples=packs", "--objective={name: prefix_lm}"], True),
        (["--data.samples=packs", "--objective.reset_attention=true"], False),
        (["--data.samples=windows"], False),
        ([], False),
    ],
)
def test_texts_of_a_pack_that_see_each_other(settings: list[str], told: bool) -> None:
    objective = dict(describe_run(load_run(TR0, settings)))["objective"]
    assert ("objective.reset_attention keeps them apart" in objective) == told
