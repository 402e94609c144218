"""The published BigScience runs: their sizes, batches and schedules are those of the public scripts and logs."""

import re
from functools import cache
from pathlib import Path

import pytest

from data_tools.samples.blend import whole_weights
from megatron_patches.objectives.objective_config import PrefixLMConfig
from megatron_patches.optim.optimizer_config import AdamWConfig
from megatron_patches.optim.schedule_config import CosineScheduleConfig
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout, require_whole_batches
from megatron_patches.run.parameter_count import count_parameters
from megatron_patches.run.reading import load_run
from megatron_patches.training.training_config import BatchRampConfig
from tools.commands.runs.compare import compare_runs
from tools.run_files.catalogue import find_run, run_files

CHECKOUT = Path(__file__).resolve().parents[2]
PUBLISHED = [path.stem for path in run_files(CHECKOUT) if re.match(r"tr(1|3|4|6|7|9|11)\D", path.stem)]
OF_THE_ISSUE = {
    *("tr1-13B-base", "tr3d-1B3-more-warmup", "tr3m-1B3-emb-norm-pile"),
    *("tr4-1B3-rotary", "tr4b-350M-rotary", "tr4c-1B3-rotary-oscar"),
    *("tr6-1B3-prefix-lm", "tr6-1B3-prefix-lm-unbiased-loss", "tr6b-350M-prefix-lm", "tr6b-350M-prefix-lm-PP2"),
    *("tr6b-350M-prefix-lm-unbiased-loss", "tr6c-350M-prefix-lm-reset-attention-mask", "tr6d-350M-prefix-lm-pile"),
    *("tr6e-1B3-pile", "tr6f-1B3-oscar-no-loss-on-targets-only", "tr6g-1B3-oscar-loss-reweighting"),
    *("tr7a-1B3-alibi", "tr7b-350M-alibi", "tr7d-1B3-alibi", "tr9b-350M-swiglu", "tr9c-1B3-swiglu-pile"),
    *("tr11-176B-ml", "tr11b-1B7-ml", "tr11c-3B-ml", "tr11d-1B1-ml", "tr11e-560M-ml", "tr11f-7B1-ml"),
}
BASELINES = {"tr3h-350M-v2", "tr3m-1B3-pile"}


@cache
def load(name: str) -> RunConfig:
    return load_run(find_run(name, CHECKOUT))


def parameters(name: str) -> int:
    return count_parameters(load(name).model, load(name).lengths).total


def differing_keys(first: str, second: str) -> set[str]:
    return {difference.key for difference in compare_runs(load(first), load(second))}


def nodes_of(name: str) -> int:
    found = re.search(r"--nodes=(\d+)", find_run(name, CHECKOUT).with_suffix(".slurm").read_text())
    assert found
    return int(found[1])


def test_all_of_them_are_here() -> None:
    assert set(PUBLISHED) == OF_THE_ISSUE | BASELINES


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_they_share(name: str) -> None:
    config = load(name)
    model, training, optimizer, schedule = config.model, config.training, config.optimizer, config.schedule
    assert config.data.sequence_length == 2048
    assert (model.hidden_dropout, model.attention_dropout, model.dropout_of_embedding) == (0.1, 0.1, 0.1)
    assert (model.tied_head, model.norm, model.norm_placement, model.attention_bias, model.mlp_bias) == (
        True, "layernorm", "pre", True, True
    )  # fmt: skip
    assert isinstance(optimizer, AdamWConfig)
    assert (optimizer.beta1, optimizer.epsilon, optimizer.weight_decay) == (0.9, 1e-8, 0.1)
    assert (optimizer.beta2, optimizer.gradient_clip) == (0.95 if name.startswith("tr11") else 0.999, 1.0)
    assert isinstance(schedule, CosineScheduleConfig)
    assert (schedule.unit, schedule.warmup) == ("samples", 216_320 if name == "tr1-13B-base" else 183_105)
    if name == "tr11-176B-ml":
        assert (training.precision, training.loss_scale) == ("bf16", None)
    else:
        assert training.loss_scale
        assert (training.precision, training.loss_scale.initial, training.loss_scale.window) == ("fp16", 4096, 500)
    assert config.parallel.zero_stage == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_script_asks_for_nodes_that_the_layout_fits(name: str) -> None:
    """On its nodes every batch on the way up divides."""
    gpus = 8 if name == "tr11-176B-ml" else 4
    config = load(name)
    layout = plan_layout(config, nodes_of(name) * gpus)
    require_whole_batches(config, layout, consumed_samples=0)
    assert layout.world_size == nodes_of(name) * gpus


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tr1-13B-base", 40 * (12 * 5120**2 + 13 * 5120) + 50_432 * 5120 + 2048 * 5120 + 2 * 5120),
        ("tr3d-1B3-more-warmup", 1_316_605_952),
        ("tr3m-1B3-emb-norm-pile", 1_316_605_952 - (50_688 - 50_304) * 2048 + 2 * 2048),
        ("tr4c-1B3-rotary-oscar", 1_316_605_952 - 2048 * 2048),
        ("tr4-1B3-rotary", 1_316_605_952 - 2048 * 2048 - (50_688 - 32_256) * 2048),
        ("tr9c-1B3-swiglu-pile", 1_316_605_952 + 24 * (3 * 5456 * 2048 + 2 * 5456 - 2 * 8192 * 2048 - 8192)),
        ("tr11-176B-ml", 176_247_271_424),  # BLOOM's, as on the Hub; so are the following
        ("tr11b-1B7-ml", 1_722_408_960),
        ("tr11c-3B-ml", 3_002_557_440),
        ("tr11d-1B1-ml", 1_065_314_304),
        ("tr11e-560M-ml", 559_214_592),
        ("tr11f-7B1-ml", 7_069_016_064),
    ],
)
def test_sizes(name: str, count: int) -> None:
    assert parameters(name) == count


@pytest.mark.parametrize(
    ("gated", "plain"), [("tr9b-350M-swiglu", "tr3h-350M-v2"), ("tr9c-1B3-swiglu-pile", "tr3m-1B3-pile")]
)
def test_a_gated_mlp_keeps_the_size(gated: str, plain: str) -> None:
    assert abs(parameters(gated) / parameters(plain) - 1) < 1e-3
    assert load(gated).model.ffn_size == int(load(plain).model.ffn_size * 2 / 3) // 8 * 8


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("tr3d-1B3-more-warmup", "learned"), ("tr4-1B3-rotary", "rotary"), ("tr4b-350M-rotary", "rotary"),
        ("tr4c-1B3-rotary-oscar", "rotary"), ("tr6-1B3-prefix-lm", "learned"), ("tr7a-1B3-alibi", "none"),
        ("tr7b-350M-alibi", "none"), ("tr7d-1B3-alibi", "alibi"), ("tr9c-1B3-swiglu-pile", "learned"),
        ("tr11-176B-ml", "alibi"), ("tr11e-560M-ml", "alibi"),
    ],
)  # fmt: skip
def test_effective_positions(name: str, position: str) -> None:
    assert load(name).model.position_embedding.name == position


@pytest.mark.parametrize("name", ["tr7a-1B3-alibi", "tr7b-350M-alibi"])
def test_runs_that_were_no_alibi_say_so(name: str) -> None:
    config = load(name)
    assert "its bias was never used" in config.why
    assert "no positions" in config.architecture.describe(config.model)


def test_tr1_is_the_published_run() -> None:
    """Steps and samples of the public log; its script asked for twice the samples that were planned.

    Its learning rates are higher by up to 0.04 %, more so the later: a schedule that does not count the updates that
    overflowed in fp16 would be behind by as much.
    """
    config = load_run(find_run("tr1-13B-base", CHECKOUT), ["--training.samples", "300000000"])
    log = {
        29_020: (10_698_064, 9.850e-05),
        29_090: (10_769_744, 9.848e-05),
        33_240: (15_019_344, 9.702e-05),
        43_680: (25_709_904, 9.135e-05),
        168_000: (153_013_584, 1.000e-05),
    }
    assert config.timetable.steps == 311_541
    for step, (samples, rate) in log.items():
        assert config.timetable.after(step).samples == samples
        assert config.learning_rate(step) == pytest.approx(rate, rel=5e-4)
    assert load("tr1-13B-base").timetable.end.samples <= 150_000_000


def test_tr11_is_the_published_run() -> None:
    """Steps, samples, tokens and learning rates of the public log."""
    config = load("tr11-176B-ml")
    log = {
        12_695: (9_841_584, 20_155_564_032, "5.969E-05"),
        31_214: (47_768_496, 97_829_879_808, "5.279E-05"),
        42_780: (71_455_664, 146_341_199_872, "4.475E-05"),
        45_000: (76_002_224, 155_652_554_752, "4.298E-05"),
        85_376: (158_692_272, 325_001_773_056, "1.150E-05"),
    }
    assert config.timetable.steps == 115_311
    for step, (samples, tokens, rate) in log.items():
        reached = config.timetable.after(step)
        assert (reached.samples, reached.tokens, f"{config.learning_rate(step):.3E}") == (samples, tokens, rate)
    assert config.learning_rate(115_311) == 6e-6
    assert (config.parallel.tensor, config.parallel.pipeline, nodes_of("tr11-176B-ml")) == (4, 12, 48)
    assert config.parallel.pipeline_partition == "transformer|embedding"


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("tr11")])
def test_tr11_reads_the_published_mix(name: str) -> None:
    """Shares of the public README, in percent: the sum of the ratios of each language's datasets."""
    data = load(name).data
    weights = {source.name: source.weight for source in data.sources}
    assert len(weights) == 28 and sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert all(source.path.endswith(f"/roots/{source.name}") for source in data.sources)
    english, chinese = weights["en"] + weights["oscar-en"], weights["zhs"] + weights["zht"] + weights["oscar-zh"]
    indic = sum(weight for source, weight in weights.items() if source.startswith("indic-"))
    found = [english, chinese, weights["fr"], weights["code"], weights["es"], indic, weights["nigercongo-all"]]
    assert [round(100 * share, 2) for share in found] == [30.2, 17.67, 13.04, 12.97, 10.69, 2.25, 0.03]
    assert min(whole_weights([source.weight for source in data.sources])) == 7


def test_tr3d_is_the_published_baseline() -> None:
    config = load("tr3d-1B3-more-warmup")
    model, training = config.model, config.training
    assert (model.layers, model.hidden_size, model.attention_heads, model.ffn_size) == (24, 2048, 16, 8192)
    assert model.padded_vocab_size == 50688 == -(-50257 // (128 * 4)) * 128 * 4
    assert training.batch_ramp == BatchRampConfig(start=32, increment=32, samples=2_000_000)
    assert 0 <= 73_242_187 - config.timetable.end.samples < training.global_batch_size
    assert config.learning_rate(config.timetable.steps) == pytest.approx(1e-5)
    assert plan_layout(config, 16 * 4).micro_batches(training) == 16


@pytest.mark.parametrize(
    ("run", "baseline", "keys"),
    [
        ("tr4c-1B3-rotary-oscar", "tr3d-1B3-more-warmup", set()),
        ("tr4b-350M-rotary", "tr3h-350M-v2", set()),
        ("tr7a-1B3-alibi", "tr3d-1B3-more-warmup", set()),
        ("tr7d-1B3-alibi", "tr3d-1B3-more-warmup", {"model.vocab_multiple", "training.micro_batch_size"}),
    ],
)
def test_position_runs_differ_from_their_baseline_in_positions_alone(run: str, baseline: str, keys: set[str]) -> None:
    """And in the layout, with the padding that came with it."""
    other = {
        key for key in differing_keys(run, baseline) if not key.startswith(("model.position_embedding", "parallel."))
    }
    assert other == keys


@pytest.mark.parametrize(
    ("run", "targets_only", "reweighted", "reset"),
    [
        ("tr6-1B3-prefix-lm", True, False, False),
        ("tr6c-350M-prefix-lm-reset-attention-mask", True, False, True),
        ("tr6e-1B3-pile", True, False, False),
        ("tr6f-1B3-oscar-no-loss-on-targets-only", False, False, False),
        ("tr6g-1B3-oscar-loss-reweighting", True, True, False),
    ],
)
def test_prefix_runs(run: str, targets_only: bool, reweighted: bool, reset: bool) -> None:
    objective = load(run).objective
    assert isinstance(objective, PrefixLMConfig)
    assert (objective.loss_on_targets_only, objective.reweight_by_position) == (targets_only, reweighted)
    assert (objective.reset_attention, objective.reset_positions) == (reset, False)


@pytest.mark.parametrize("run", ["tr6-1B3-prefix-lm", "tr6b-350M-prefix-lm"])
def test_the_unbiased_loss_is_the_only_one_there_is(run: str) -> None:
    assert differing_keys(run, f"{run}-unbiased-loss") == set()


def test_a_second_stage_is_all_that_differs() -> None:
    assert differing_keys("tr6b-350M-prefix-lm", "tr6b-350M-prefix-lm-PP2") == {"parallel.pipeline"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_run_is_its_difference(name: str) -> None:
    """Small files; only the two that are no one's variant are whole, and one names 28 sources, a line each."""
    lines = [line for line in find_run(name, CHECKOUT).read_text().splitlines() if not line.startswith("    - {name: ")]
    assert len(lines) <= (55 if name in ("tr3d-1B3-more-warmup", "tr11-176B-ml") else 32)
    script = find_run(name, CHECKOUT).with_suffix(".slurm").read_text().splitlines()
    assert len([line for line in script if line.startswith(("#!", "#SBATCH", "run="))]) == 10
