"""What must hold between a GPT's section and the rest of a run."""

from collections.abc import Iterator

from megatron_patches.batch.fields import POSITIONS
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.interface.architecture import Workload
from megatron_patches.models.transformer.attention_problems import attention_problems
from megatron_patches.models.transformer.fp8_problems import fp8_problems


def gpt_problems(model: GPTConfig, work: Workload) -> Iterator[Problem]:
    """Each with the nearest values that work."""
    yield from attention_problems(model, work)
    yield from _positions(model, work)
    yield from fp8_problems(model, work)


def _positions(model: GPTConfig, work: Workload) -> Iterator[Problem]:
    """What a task needs of positions, and positions that count from each document where nothing can read that."""
    position, inputs = model.position_embedding, work.inputs
    if inputs.attention == "ranges" and position.name == "none":
        yield Problem(
            "model.position_embedding",
            "model.position_embedding none leaves objective prefix_lm without the prefix's order: without positions a "
            "token knows its place by what it sees, and in a prefix each sees all; use learned, rotary or alibi",
        )
    if not inputs.has(POSITIONS):
        return
    key = "objective.reset_positions"
    if not position.reads_positions:
        yield Problem(
            key, f"{key} has no effect with model.position_embedding {position.name}, which knows distances at most"
        )
    elif inputs.within_documents and position.name == "rotary":
        yield Problem(
            key,
            f"{key} has no effect with rotary positions and objective.reset_attention: within a document distances "
            "stay the same; keep reset_attention alone",
        )
