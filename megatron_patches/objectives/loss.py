"""Cross entropy over logits whose vocabulary is shared by the tensor-parallel ranks."""

from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from torch import Tensor


def weighted_loss(logits: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
    """Sum over tokens of weight x negative log-likelihood, in nats, computed in fp32.

    `logits` `[sequence, batch, vocabulary / tensor]`; `targets` is (labels int64, weights fp32), each
    `[batch, sequence]`. The same number on every tensor-parallel rank.
    """
    labels, weights = targets
    token_losses = vocab_parallel_cross_entropy(logits.float(), labels.transpose(0, 1).contiguous())
    return (token_losses * weights.transpose(0, 1)).sum()
