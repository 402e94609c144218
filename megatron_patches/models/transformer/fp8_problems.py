"""What float8's matrices ask of a GPT's sizes; each message names the nearest values that work."""

import math
from collections.abc import Iterator

from megatron_patches.configuration.divisibility import either, multiples_near
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.interface.architecture import Workload
from megatron_patches.models.layers.transformer_config import TransformerConfig

MULTIPLE = 16
"""of both dimensions of each matrix that is multiplied in float8 (cuBLAS, "FP8 data types"): 16 bytes"""


def fp8_problems(model: TransformerConfig, work: Workload) -> Iterator[Problem]:
    """Of each rank's matrices, and of the tokens, over which the gradient of a weight is summed."""
    if work.training.fp8 == "none":
        return
    yield from _widths(model, work.layout.tensor)
    yield from _keys_and_values(model, work.layout.tensor)
    yield from _tokens(work)


def _widths(model: TransformerConfig, tensor: int) -> Iterator[Problem]:
    step = MULTIPLE * tensor
    hidden = multiples_near(model.hidden_size, math.lcm(step, model.attention_heads))
    of_mlp = multiples_near(model.mlp_width, math.lcm(step, model.mlp_multiple))
    makes = "" if model.mlp_width == model.ffn_size else f", which makes {model.mlp_width} features,"
    for name, width, made, near in (
        ("hidden_size", model.hidden_size, "", hidden),
        ("ffn_size", model.mlp_width, makes, [int(each * model.ffn_size_per_feature) for each in of_mlp]),
    ):
        if width % step:
            yield Problem(
                f"model.{name}",
                f"model.{name} {getattr(model, name)}{made} over parallel.tensor {tensor} is not divisible "
                f"by {MULTIPLE}, which training.fp8 needs of every matrix; nearest model.{name}: {either(near)}; or "
                "training.fp8 none",
            )


def _keys_and_values(model: TransformerConfig, tensor: int) -> Iterator[Problem]:
    """Where heads share them they have a matrix of their own: this rank's groups, or all of them on every rank."""
    if model.groups == model.attention_heads or model.hidden_size % MULTIPLE:
        return

    def features(groups: int) -> int:
        return 2 * groups * model.head_size // (tensor if groups >= tensor else 1)

    if features(model.groups) % MULTIPLE:
        heads = model.attention_heads
        fit = [n for n in range(1, heads + 1) if heads % n == 0 and (n == heads or features(n) % MULTIPLE == 0)]
        near = sorted(fit, key=lambda n: abs(n - model.groups))[:2]
        yield Problem(
            "model.key_value_heads",
            f"model.key_value_heads {model.groups} gives a matrix of {features(model.groups)} keys' and values' "
            f"features on a rank, not divisible by {MULTIPLE}, which training.fp8 needs; nearest "
            f"model.key_value_heads: {either(near)}; or training.fp8 none",
        )


def _tokens(work: Workload) -> Iterator[Problem]:
    micro, length = work.micro_batch, work.lengths.of("tokens")
    if micro * length % MULTIPLE:
        step = MULTIPLE // math.gcd(MULTIPLE, length)
        yield Problem(
            "training.micro_batch_size",
            f"training.micro_batch_size {micro} x data.sequence_length {length} tokens are not divisible by "
            f"{MULTIPLE}, which training.fp8 needs; nearest micro_batch_size: {either(multiples_near(micro, step))}; "
            "or training.fp8 none",
        )
