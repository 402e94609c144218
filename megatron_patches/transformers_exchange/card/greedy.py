"""Whether a greedy continuation is another model's too."""

from __future__ import annotations

from torch import Tensor

from megatron_patches.transformers_exchange.card.card import NEAR_TIE, GreedyFigures, NotEqual
from megatron_patches.transformers_exchange.card.logits import distance_of_first_two

CHECK = "greedy"


def compare_greedy(logits: Tensor, generated: Tensor, prompt: int) -> GreedyFigures:
    """Compares the folder's tokens with the checkpoint's likeliest ones, up to a near tie, which ends the comparison.

    By induction a continuation is greedy for a model where each of its tokens is the likeliest after those before it.
    So one pass of the model over all of it tells.

    Args:
        logits: the checkpoint's, fp32 `[tokens, vocabulary]`, each after all tokens before this one.
        generated: `[tokens]`, by the folder's model.
        prompt: tokens before them.

    Raises:
        NotEqual: a token is another one, and no near tie.
    """
    likeliest = logits.argmax(-1)
    other = (likeliest != generated).nonzero()
    if len(other) == 0:
        return GreedyFigures(prompt=prompt, tokens=len(generated), equal=len(generated), near_tie=None)
    at = int(other[0])
    distance = float(distance_of_first_two(logits[at]))
    if distance > NEAR_TIE:
        raise NotEqual(
            CHECK,
            f"token {at + 1} of {len(generated)} is {int(likeliest[at])} by the checkpoint and {int(generated[at])} by "
            f"the folder, and the checkpoint's first two logits are {distance:.3g} apart (a near tie is {NEAR_TIE:g})",
        )
    return GreedyFigures(prompt=prompt, tokens=len(generated), equal=at, near_tie=distance)
