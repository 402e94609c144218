"""What Megatron's and DeepSpeed's options are called in a run, for those who know them by those names."""

from collections.abc import Iterable, Iterator

# option without its dashes -> the key, or what to do where there is no single one
_KEYS = {
    "num-layers": "model.layers",
    "hidden-size": "model.hidden_size",
    "ffn-hidden-size": "model.ffn_size",
    "num-attention-heads": "model.attention_heads",
    "num-query-groups": "model.key_value_heads",
    "num-key-value-heads": "model.key_value_heads",
    "group-query-attention": "model.key_value_heads",
    "vocab-size": "model.vocab_size",
    "padded-vocab-size": "model.vocab_size",
    "make-vocab-size-divisible-by": "model.vocab_multiple",
    "position-embedding-type": "model.position_embedding",
    "use-rotary-position-embeddings": "model.position_embedding rotary",
    "rotary-base": "model.position_embedding.theta",
    "rotary-percent": "model.position_embedding.fraction",
    "normalization": "model.norm",
    "norm-epsilon": "model.norm_epsilon",
    "layernorm-epsilon": "model.norm_epsilon",
    "swiglu": "model.activation swiglu",
    "glu-activation": "model.activation",
    "embed-layernorm": "model.embedding_norm true",
    "qk-layernorm": "model.query_key_norm true",
    "disable-bias-linear": "model.attention_bias false and --model.mlp_bias false",
    "add-qkv-bias": "model.attention_bias",
    "untie-embeddings-and-output-weights": "model.tied_head false",
    "hidden-dropout": "model.hidden_dropout",
    "attention-dropout": "model.attention_dropout",
    "init-method-std": "model.init_std",
    "data-path": "data.path",
    "train-data-path": "data.path",
    "tokenizer-model": "data.tokenizer",
    "tokenizer-name-or-path": "data.tokenizer",
    "tokenizer-type": "data.tokenizer",
    "vocab-file": "data.tokenizer",
    "merge-file": "data.tokenizer",
    "split": "data.split",
    "seq-length": "data.sequence_length",
    "max-position-embeddings": "data.sequence_length",
    "reset-attention-mask": "objective.reset_attention true",
    "reset-position-ids": "objective.reset_positions true",
    "eod-mask-loss": "objective.loss_after_end_of_document false",
    "loss-on-targets-only": "objective.loss_on_targets_only true",
    "train-iters": "training.steps",
    "train-samples": "training.samples",
    "train-tokens": "training.tokens",
    "global-batch-size": "training.global_batch_size",
    "micro-batch-size": "training.micro_batch_size",
    "rampup-batch-size": "training.batch_ramp",
    "fp16": "training.precision fp16",
    "bf16": "training.precision bf16",
    "fp8-format": "training.fp8",
    "loss-scale": "training.loss_scale",
    "initial-loss-scale": "training.loss_scale.initial",
    "loss-scale-window": "training.loss_scale.window",
    "hysteresis": "training.loss_scale.hysteresis",
    "min-loss-scale": "training.loss_scale.minimum",
    "recompute-granularity": "training.recomputation",
    "recompute-activations": "training.recomputation",
    "checkpoint-activations": "training.recomputation",
    "deepspeed-activation-checkpointing": "training.recomputation",
    "use-flash-attn": "training.attention_kernel flash",
    "attention-backend": "training.attention_kernel",
    "seed": "training.seed",
    "optimizer-type": "optimizer",
    "lr": "optimizer.learning_rate",
    "learning-rate": "optimizer.learning_rate",
    "weight-decay": "optimizer.weight_decay",
    "clip-grad": "optimizer.gradient_clip",
    "adam-beta1": "optimizer.beta1",
    "adam-beta2": "optimizer.beta2",
    "adam-eps": "optimizer.epsilon",
    "sgd-momentum": "optimizer.momentum",
    "min-lr": "schedule.final_learning_rate",
    "lr-decay-style": "schedule.name",
    "lr-decay-iters": "schedule.decay_end",
    "lr-decay-samples": "schedule.decay_end",
    "lr-decay-tokens": "schedule.decay_end",
    "lr-warmup-iters": "schedule.warmup",
    "lr-warmup-samples": "schedule.warmup",
    "lr-warmup-tokens": "schedule.warmup",
    "lr-wsd-decay-iters": "schedule.decay",
    "lr-wsd-decay-style": "schedule.shape",
    "tensor-model-parallel-size": "parallel.tensor",
    "pipeline-model-parallel-size": "parallel.pipeline",
    "sequence-parallel": "parallel.sequence_parallel true",
    "zero-stage": "parallel.zero_stage",
    "use-distributed-optimizer": "parallel.zero_stage 1",
    "overlap-grad-reduce": "parallel.overlap_reduction true",
    "save-interval": "checkpoint.every_steps",
    "async-save": "checkpoint.asynchronous true",
    "log-interval": "logging.every_steps",
    "wandb-project": "logging.wandb.project",
    "eval-interval": "evaluation.every_steps",
    "eval-iters": "evaluation.samples",
    "profile-step-start": "profile.after_step",
}
_ELSEWHERE = {
    "save": "a run saves in its own folder, $TRAINYARD_RUNS/NAME/checkpoints",
    "load": "a run resumes from its own folder; tools/import-checkpoint takes another's",
    "tensorboard-dir": "a run's pictures are in its own folder, $TRAINYARD_RUNS/NAME/tensorboard",
    "deepspeed": "every run trains with DeepSpeed",
    "deepspeed-config": "what a DeepSpeed configuration says follows from the run's keys",
    "nproc-per-node": "processes follow from the GPUs of the job, or --parallel.processes_per_node",
    "num-workers": "samples are read without worker processes",
    "exit-duration-in-mins": "a run stops by #SBATCH --signal=B:USR1@600 before its job's end",
    "exit-signal-handler": "every run saves and stops at SIGUSR1 and SIGTERM",
    "world-size": "processes follow from the job's nodes and GPUs",
}


def known_as(name: str) -> str | None:
    """What an option of Megatron's or DeepSpeed's is here, in words; None for a name that is none of theirs.

    Args:
        name: with or without dashes before it, with dashes or underscores within.
    """
    option = name.lstrip("-").replace("_", "-")
    if option in _KEYS:
        return f"here --{_KEYS[option]}"
    return _ELSEWHERE.get(option)


def foreign_flags(words: Iterable[str], keys: Iterable[str]) -> Iterator[str]:
    """Options of Megatron's among the words of a command line, each with what it is here.

    Args:
        keys: the run's own top-level keys, which are never Megatron's.
    """
    # one that lacks no more than its section is as good as ours, and is answered so
    ours = {*keys, *(answer.split()[0].rpartition(".")[2] for answer in _KEYS.values())}
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name[2:] not in ours and (meaning := known_as(name)):
            yield f"{name} is Megatron's: {meaning}"
