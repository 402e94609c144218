"""What must hold between sections, and the values that the messages offer."""

import shlex
from pathlib import Path

import pytest

from megatron_patches.configuration.divisibility import divisors_near, multiples_near
from megatron_patches.errors import TrainyardError
from megatron_patches.run.reading import load_run
from megatron_patches.run.timetable import Timetable
from megatron_patches.training.training_config import BatchRampConfig, TrainingConfig
from tests.small_run import write_run

ENCODER = "--model '{name: encoder, layers: 4, hidden_size: 16, attention_heads: 4, ffn_size: 96, vocab_size: 320}' "
MASKED = ENCODER + "--objective.name masked_lm "
CASES = [
    ("--schedule.warmup 10", "schedule.warmup 10 leaves nothing of the 10 steps", "use at most 9"),
    ("--schedule '{name: constant, warmup: 11}'", "schedule.warmup 11 leaves nothing of the 10 steps", "at most 10"),
    ("--schedule.decay_end 2", "schedule.warmup 2 leaves nothing of the 2 steps", "use at most 1"),
    ("--schedule.final_learning_rate 1e-3", "is above the peak, optimizer.learning_rate 0.0006", "at most 0.0006"),
    ("--checkpoint.every_steps 11", "checkpoint.every_steps 11 is beyond the run's 10 steps", "use at most 10"),
    ("--logging.every_steps 11", "logging.every_steps 11 is beyond the run's 10 steps", "use at most 10"),
    ("--evaluation '{every_steps: 11, samples: 1}'", "evaluation.every_steps 11 is beyond", "use at most 10"),
    ("--parallel.tensor 3", "model.attention_heads 4 is not divisible by parallel.tensor 3", "works: 2 or 4"),
    (
        "--model.vocab_size 322 --parallel.tensor 4",
        "padded to 322, is not divisible",
        "vocab_multiple to a multiple of 4",
    ),
    ("--model.ffn_size 62 --parallel.tensor 4", "ffn_size 62 is not divisible", "model.ffn_size: 60 or 64"),
    ("--parallel.pipeline 5", "parallel.pipeline 5 stages are more than the 4 blocks", "use at most 4"),
    ("--training.micro_batch_size 3", "global_batch_size 8 is not divisible", "global_batch_size: 6 or 9"),
    ("--training.micro_batch_size 3", "global_batch_size 8 is not divisible", "micro_batch_size: 2 or 4"),
    (MASKED + "--parallel.tensor 3", "model.ffn_size 96, which makes 64 features, is not", "model.ffn_size: 72 or 108"),
    (MASKED + "--model.gated_width as_given --model.ffn_size 62 --parallel.tensor 4", "ffn_size 62 is not", "60 or 64"),
    # masked LM
    *(
        (
            f"{ENCODER} --objective '{{name: masked_lm, probability: {value}}}'",
            f"objective.probability{key}: {wrong} is not",
            "above 0 and below 1",
        )
        for value, key, wrong in [
            ("0", "", "0"),
            ("1", "", "1"),
            ("1.5", "", "1.5"),
            ("{start: 0.0, end: 0.2, samples: 5}", ".start", "0.0"),
            ("{start: 0.3, end: 1, samples: 5}", ".end", "1"),
        ]
    ),
    (
        ENCODER + "--objective '{name: masked_lm, probability: high}'",
        'objective.probability: "high" is not a number',
        "",
    ),
    (
        ENCODER + "--objective '{name: masked_lm, probability: {start: 0.3, end: 0.3, samples: 5}}'",
        "start and end are both 0.3",
        "write the number alone",
    ),
    *(
        (
            f"--objective '{{name: {name}, masked_logits_only: true}}'",
            f"does not go with objective.name {name}",
            "the logits of all positions are needed; remove it",
        )
        for name in ("causal", "prefix_lm")
    ),
    ("--objective masked_lm", "objective masked_lm does not go with model gpt", "the pattern documents"),
    (ENCODER, "objective causal does not go with model encoder", "the pattern causal"),
    (MASKED + "--training.precision fp16", "fp16 is not supported for model encoder", "use bf16"),
    (
        MASKED + "--model.activation gelu --model.gated_width as_given",
        "gated_width as_given has no effect",
        "remove it",
    ),
    # the model
    (
        "--model.key_value_heads 3",
        "attention_heads 4 is not divisible by key_value_heads 3",
        "divides the attention heads",
    ),
    ("--model.key_value_heads 0", "model.key_value_heads: 0 is not greater than 0", "multi-query"),
    ("--model.norm rmsnorm", "RMSNorm has no bias", "set norm_bias: false"),
    ("--model.norm_placement post --model.parallel_residual true", "parallel_residual needs", "norm_placement: pre"),
    ("--model.position_embedding '{name: rotary, fraction: 0.2}'", "of 4 features a head are 0.8,", "number: 0.5"),
    (
        "--model.position_embedding '{name: rotary, fraction: 0.3}' --model.hidden_size 512",
        "of 128 features a head are 38.4,",
        "nearest fraction that gives an even number: 0.296875 or 0.3125",
    ),
    (
        "--model.position_embedding rotary --model.hidden_size 4",
        "of 1 features a head are 1,",
        "give a head at least 2",
    ),
    ("--model.position_embedding rotatory", "rotatory", "learned, rotary, alibi, none"),
    ("--model.position_embedding.theta 5", "model.position_embedding.name is missing", "rotary"),
    ("--model.activation glu", '"glu"', "swiglu"),
    ("--model.init_std 0.0", "init_std 0.0 is not above 0", "learn alike"),
    ("--model.init_std tiny", '"tiny" is not a number', "small"),
    ("--model.logit_soft_cap 0", "model.logit_soft_cap: 0 is not greater than 0", "tanh"),
    ("--model.vocab_multiple 0", "model.vocab_multiple: 0 is not greater than 0", "padded up"),
    ("--model.embedding_dropout 1.0", "model.embedding_dropout: 1.0 is not less than 1", "after the embedding"),
    # what is asked of it
    ("--objective.reset_positions true --model.position_embedding alibi", "no effect with", "alibi"),
    ("--objective.reset_positions true --model.position_embedding none", "no effect with", "none"),
    (
        "--objective '{reset_positions: true, reset_attention: true}' --model.position_embedding rotary",
        "no effect with rotary",
        "keep reset_attention alone",
    ),
    ("--objective.loss_on_targets_only true", "objective.loss_on_targets_only has no effect", "causal has no such key"),
    ("--objective.name prefix", "prefix", "causal, prefix_lm"),
    (
        "--objective prefix_lm --model.position_embedding none",
        "model.position_embedding none leaves objective prefix_lm without the prefix's order",
        "use learned, rotary or alibi",
    ),
    (
        "--objective '{name: prefix_lm, reweight_by_position: true, loss_on_targets_only: false}'",
        "reweight_by_position needs loss_on_targets_only",
        "leave one of them out",
    ),
    (
        "--objective '{name: prefix_lm, reweight_by_position: true, reset_attention: true}'",
        "reweight_by_position does not go with reset_attention",
        "leave one of them out",
    ),
    ("--objective.label_smoothing 1.0", "objective.label_smoothing: 1.0 is not less than 1", "spread evenly"),
    ("--objective.z_loss -1.0", "objective.z_loss: -1.0 is not greater than or equal to 0", "1e-4"),
    # length and batch
    ("--training.samples 80", "given: steps and samples", "Keep one"),
    ("--training.steps null", "given: none of them", "Keep one"),
    (
        "--training.batch_ramp '{start: 2, increment: 4, samples: 8}'",
        "never meets global_batch_size 8",
        "divides the difference, 6",
    ),
    (
        "--training.batch_ramp '{start: 8, increment: 4, samples: 8}'",
        "never meets global_batch_size 8",
        "difference, 0",
    ),
    ("--training.batch_ramp '{start: 4, increment: 4, samples: 99}'", "not below the run's", "use at most"),
    (
        "--training.batch_ramp '{start: 2, increment: 2, samples: 6}'",
        "batch_ramp.samples 6 is so short that 1 of the ramp's 4 sizes are skipped",
        "use at least 12",
    ),
    (
        "--training.batch_ramp '{start: 2, increment: 2, samples: 1}'",
        "batch_ramp.samples 1 is so short that 2 of the ramp's 4 sizes are skipped",
        "use at least 12",
    ),
    (
        "--training.batch_ramp '{start: 3, increment: 5, samples: 4}'",
        "batch_ramp.start 3 is not divisible by training.micro_batch_size 2",
        "nearest: 2 or 4",
    ),
    (
        "--training.batch_ramp '{start: 3, increment: 5, samples: 4}'",
        "batch_ramp.increment 5 is not divisible by training.micro_batch_size 2",
        "nearest: 4 or 6",
    ),
    (
        "--training.steps null --training.samples 7",
        "training.samples 7 is less than the first global batch, 8 samples",
        "use at least 8",
    ),
    (
        "--training.steps null --training.tokens 63",
        "training.tokens 63 is less than the first global batch, 8 samples of 8 tokens",
        "use at least 64",
    ),
    (
        "--training.steps null --training.samples 1 --training.batch_ramp '{start: 2, increment: 2, samples: 9}'",
        "training.samples 1 is less than the first global batch, 2 samples",
        "use at least 2",
    ),
    # precision and memory
    ("--training.loss_scale '{window: 5}'", "loss_scale has no effect with precision fp32", "remove it, or use fp16"),
    ("--training.recomputation some", '"some"', "selective"),
    ("--training.compile true --parallel.zero_stage 3", "does not go with parallel.zero_stage 3", "zero_stage 2"),
    # the layout
    ("--parallel.zero_stage 2 --parallel.pipeline 2", "zero_stage 2 needs pipeline 1", "set zero_stage to 1 or 0"),
    ("--parallel.zero_stage 2 --parallel.overlap_reduction true", "overlap_reduction is for", "set it to false"),
    ("--parallel.zero_stage 3 --parallel.pipeline 2", "zero_stage 3 needs pipeline 1", "or pipeline to 1"),
    ("--parallel.zero_stage 4", "parallel.zero_stage: 4 is not 0, 1, 2 or 3", "weights"),
    ("--parallel.sequence_parallel true", "no effect with tensor 1", "raise tensor"),
    (
        "--parallel.sequence_parallel true --parallel.tensor 2 --data.sequence_length 15",
        "data.sequence_length 15 is not divisible by parallel.tensor 2",
        "14 or 16",
    ),
    (
        "--parallel.pipeline 2 --training.trainable '[\"layers.0.*\"]'",
        "nothing to train in pipeline stage 1 of 2, which holds layers.2 to layers.3, final_norm, embedding;",
        "fewer stages",
    ),
    (
        '--parallel.pipeline 4 --model.tied_head false --training.frozen \'["layers.3.*", "final*", "head.*"]\'',
        "in pipeline stage 3 of 4, which holds layers.3, final_norm, head;",
        "fewer stages",
    ),
    ("--parallel.pipeline_partition parameters", "no effect with pipeline 1", "raise pipeline"),
    (
        "--model.key_value_heads 2 --model.attention_heads 6 --model.hidden_size 48 --parallel.tensor 3 "
        "--model.ffn_size 66 --model.vocab_size 324",
        "model.key_value_heads 2 and parallel.tensor 3: one must divide the other",
        "nearest parallel.tensor that works: 2 or 6",
    ),
    (
        "--model.key_value_heads 2 --model.attention_heads 6 --model.hidden_size 48 --parallel.tensor 3 "
        "--model.ffn_size 66 --model.vocab_size 321",
        "model.key_value_heads 2 and parallel.tensor 3: one must divide the other",
        "nearest parallel.tensor that works: 1",
    ),
    (
        "--model.key_value_heads 2 --model.attention_heads 6 --model.hidden_size 48 --parallel.tensor 4 "
        "--model.ffn_size 66 --model.vocab_size 324",
        "model.ffn_size 66 is not divisible by parallel.tensor 4",
        "nearest parallel.tensor that works: 2 or 6; nearest model.ffn_size: 64 or 68",
    ),
    (
        "--model.key_value_heads 2 --model.attention_heads 6 --model.hidden_size 48 --parallel.tensor 5 "
        "--model.ffn_size 66 --model.vocab_size 324",
        "model.vocab_size 324, padded to 324, is not divisible by parallel.tensor 5",
        "nearest parallel.tensor that works: 6 or 2; or set",
    ),
    # update rules and learning rates
    ("--optimizer.weight_decay_by_name '{\"*.bias\": -1.0}'", "-1.0 is not greater than or equal to 0", "optimizer"),
    ("--optimizer '{name: muon, learning_rate: 1e-2}'", "optimizer.rest is missing", "AdamW for embeddings"),
    ("--optimizer.momentum 0.9", "optimizer.momentum has no effect", "adamw has no such key"),
    ("--schedule '{name: warmup_stable_decay, warmup: 6, decay: 5}'", "do not fit into the 10 steps", "at most 4"),
    ("--schedule '{name: inverse_square_root, warmup: 2, final_learning_rate: 1.0}'", "is above the peak", "at most"),
    (
        "--schedule '{name: inverse_square_root, unit: samples}'",
        "schedule.timescale and schedule.warmup are not given",
        "give one of them, in samples",
    ),
    ("--schedule '{name: inverse_square_root, unit: tokens}'", "would fall from the first of the tokens", "in tokens"),
    (
        "--optimizer '{name: adafactor, learning_rate: 1e-2, scale_by_parameter: false, least_scale: 1e-3}'",
        "least_scale has no effect with scale_by_parameter: false",
        "remove it",
    ),
    (
        "--optimizer '{name: muon, learning_rate: 1e-2, momentum: 0, rest: {learning_rate: 1e-3}}'",
        "nesterov has no effect with momentum 0",
        "set nesterov: false",
    ),
    ("--checkpoint.best_by validation", "checkpoint.best_by validation has no effect without evaluation", "remove"),
    (
        "--checkpoint.best_by other --evaluation '{every_steps: 5, samples: 1}'",
        "checkpoint.best_by other is no validation group",
        "there is validation",
    ),
    ("--schedule '{name: cosine, unit: samples, warmup: 80}'", "leaves nothing of the 80 samples", "use at most 79"),
]


@pytest.mark.parametrize(("arguments", "problem", "remedy"), CASES)
def test_what_cannot_be(tmp_path: Path, arguments: str, problem: str, remedy: str) -> None:
    with pytest.raises(TrainyardError) as caught:
        load_run(write_run(tmp_path / "run.yaml"), shlex.split(arguments))
    matching = [line for line in str(caught.value).splitlines() if problem in line]
    assert len(matching) == 1
    assert remedy in matching[0]


def test_the_nearest_validation_groups_are_offered(tmp_path: Path) -> None:
    groups = "[{name: code, path: a}, {name: english, path: b}, {name: web, path: c}]"
    given = ["--data.split", "100", "--data.validation", groups, "--evaluation", "{every_steps: 5, samples: 1}"]
    with pytest.raises(TrainyardError, match=r"checkpoint.best_by englsh is no validation group; nearest english "):
        load_run(write_run(tmp_path / "run.yaml"), [*given, "--checkpoint.best_by", "englsh"])
    assert load_run(tmp_path / "run.yaml", [*given, "--checkpoint.best_by", "web"]).best_group == "web"
    assert load_run(tmp_path / "run.yaml", given).best_group == "code"
    assert load_run(tmp_path / "run.yaml", []).best_group is None


def test_a_run_without_a_step_is_told_nothing_else_of_its_length(tmp_path: Path) -> None:
    arguments = ["--training.steps", "null", "--training.samples", "7"]
    with pytest.raises(TrainyardError) as caught:
        load_run(write_run(tmp_path / "run.yaml"), arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_heads_of_keys_are_named_only_where_there_are_fewer(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError) as caught:
        load_run(write_run(tmp_path / "run.yaml"), ["--parallel.tensor", "3"])
    assert "key_value_heads" not in str(caught.value)


def test_validation_needs_documents(tmp_path: Path) -> None:
    arguments = ["--evaluation", "{every_steps: 2, samples: 5}", "--data.split", "1,0,1"]
    with pytest.raises(TrainyardError, match=r"data.split 1,0,1 gives validation no documents .* asks for 5 samples"):
        load_run(write_run(tmp_path / "run.yaml"), arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--schedule.warmup", "9"],
        ["--schedule.decay_end", "10"],
        ["--schedule.final_learning_rate", "6e-4"],
        ["--schedule", "{name: constant, warmup: 10}"],
        ["--schedule", "{name: inverse_square_root, warmup: 10}"],
        ["--schedule", "{name: cosine, warmup: 2, decay_end: 1000}"],
        ["--schedule", "{name: cosine, unit: tokens, decay_end: 99999}"],
        ["--schedule", "{name: warmup_stable_decay, warmup: 2, decay: 100, decay_end: 1000}"],
        ["--checkpoint.every_steps", "10"],
        ["--parallel.tensor", "4", "--parallel.pipeline", "4"],
        ["--parallel.pipeline", "2", "--training.trainable", '["layers.0.*", "embedding.*"]'],
        ["--training.steps", "null", "--training.tokens", "640"],
        ["--training.batch_ramp", "{start: 4, increment: 2, samples: 9}"],
        ["--schedule", "{name: inverse_square_root, timescale: 10000}"],
        [
            "--schedule",
            "{name: inverse_square_root, timescale: 10000}",
            "--optimizer",
            "{name: adafactor, learning_rate: 1e-2}",
        ],
        ["--objective", "{name: prefix_lm, reweight_by_position: true}"],
        ["--training.micro_batch_size", "8"],
        ["--model.position_embedding", "none"],
        ["--model.position_embedding", "{name: rotary, fraction: 0.25}", "--model.hidden_size", "384"],
        ["--model.position_embedding", "{name: rotary, fraction: 0.296875}", "--model.hidden_size", "512"],
        ["--model.position_embedding", "{name: rotary, fraction: 0.333333}", "--model.hidden_size", "384"],
        ["--training.batch_ramp", "{start: 2, increment: 2, samples: 12}", "--training.micro_batch_size", "1"],
        ["--training.batch_ramp", "{start: 4, increment: 4, samples: 1}"],
        ["--schedule", "{name: inverse_square_root, unit: samples, timescale: 9}"],
        ["--schedule", "{name: inverse_square_root, unit: tokens, warmup: 9}"],
        ["--schedule", "{name: inverse_square_root}"],
        ["--optimizer", "{name: adafactor, learning_rate: 1e-2, scale_by_parameter: false}"],
        ["--optimizer", "{name: muon, learning_rate: 1e-2, momentum: 0, nesterov: false, rest: {learning_rate: 1e-3}}"],
    ],
)
def test_the_last_values_that_work(tmp_path: Path, arguments: list[str]) -> None:
    load_run(write_run(tmp_path / "run.yaml"), arguments)


@pytest.mark.parametrize("start", [2, 8, 14])
@pytest.mark.parametrize("increment", [1, 2, 6])
def test_a_ramp_of_the_samples_asked_for_skips_no_size(start: int, increment: int) -> None:
    sizes = range(start, start + 6 * increment + 1, increment)
    enough = 6 * sizes[-3]
    for samples in range(enough, enough + 40):
        ramp = BatchRampConfig(start=start, increment=increment, samples=samples)
        training = TrainingConfig(steps=1, global_batch_size=sizes[-1], micro_batch_size=1, batch_ramp=ramp)
        assert [stretch.batch_size for stretch in Timetable(training, 1).stretches] == list(sizes)


def test_offered_values_work() -> None:
    for value in range(1, 60):
        for other in range(1, 20):
            assert all(multiple % other == 0 and multiple > 0 for multiple in multiples_near(value, other))
            assert all(value % divisor == 0 for divisor in divisors_near(value, other))
            assert multiples_near(value, other)
            assert divisors_near(value, other)
    assert multiples_near(10, 4) == [8, 12]
    assert multiples_near(3, 4) == [4]
    assert divisors_near(12, 5) == [4, 6]
    assert divisors_near(12, 20) == [12]
