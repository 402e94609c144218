"""What must hold between an encoder's section and the rest of a run."""

from collections.abc import Iterator

from megatron_patches.configuration.problems import Problem
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.interface.architecture import Workload
from megatron_patches.models.transformer.attention_problems import attention_problems
from megatron_patches.models.transformer.fp8_problems import fp8_problems


def encoder_problems(model: EncoderConfig, work: Workload) -> Iterator[Problem]:
    """Each with the nearest values that work."""
    if work.training.precision == "fp16":
        yield Problem(
            "training.precision",
            "training.precision fp16 is not supported for model encoder; use bf16, or fp32 on a GPU without bf16",
        )
    if model.position_embedding.name == "none":
        yield Problem(
            "model.position_embedding",
            "model.position_embedding none leaves an encoder without the order of its tokens, which all see each "
            "other; use rotary, learned or alibi",
        )
    yield from attention_problems(model, work)
    yield from fp8_problems(model, work)
