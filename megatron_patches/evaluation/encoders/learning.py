"""A head on top of an encoder, trained on labelled texts: the whole copy, or the head alone on features.

A pure function of weights, rows, settings and seed on one kind of machine: the order of rows, the head's first weights
and dropout come from the seed. Kernels of a GPU may add in another order each time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron_patches.errors import Damaged
from megatron_patches.evaluation.encoders.trunk import Trunk
from megatron_patches.evaluation.tasks.fine_tuning import DROPOUT, GRADIENT_CLIP, WARMUP, WEIGHT_DECAY, FineTuning
from megatron_patches.parameters.info import derive_seed

_HEAD_SPREAD = 0.02
"""standard deviation of the head's first weights, BERT's"""
_LEAST_SPREAD = 1e-6
"""by which a feature is divided at least: one that is the same for all texts has no spread"""


@dataclass(frozen=True)
class Rows:
    """Labelled texts as ids."""

    texts: Sequence[list[int]]
    labels: Tensor
    """numbers of labels, or scores; fp32 `[rows]`"""


def learn_and_ask(
    trunk: Trunk, train: Rows, asked: Sequence[list[int]], outputs: int, settings: FineTuning
) -> Iterator[Tensor]:
    """What the encoder says of the texts that are asked once it has been fine-tuned from each seed: scores of labels,
    fp32 `[texts, outputs]` in CPU memory. The trunk ends as it was.

    Args:
        outputs: labels, or 1 where a score is predicted.

    Raises:
        Damaged: the loss is no number.
    """
    if settings.frozen:
        features = _Features(trunk, train.texts, asked, settings)
        for seed in range(settings.seeds):
            head = _head(features.train.shape[1], outputs, train.labels, seed, trunk.device)
            _train(features.learned, head, head.parameters(), train, settings, seed, lambda step: None)
            with torch.no_grad():
                yield head(features.asked).cpu()
        return
    with torch.no_grad():
        width = trunk.features(train.texts[:1], settings.pooling).shape[1]
    before = {name: values.clone() for name, values in trunk.model.state_dict().items()}
    for seed in range(settings.seeds):
        head = _head(width, outputs, train.labels, seed, trunk.device)
        try:
            yield _tune(trunk, head, train, asked, settings, seed)
        finally:
            trunk.model.load_state_dict(before)


class _Features:
    """What the encoder, as it is, makes of all texts, each feature with mean 0 and spread 1 over those of train."""

    def __init__(
        self, trunk: Trunk, train: Sequence[list[int]], asked: Sequence[list[int]], settings: FineTuning
    ) -> None:
        self.train, self.asked = (_read(trunk, texts, settings) for texts in (train, asked))
        mean, spread = self.train.mean(0), self.train.std(0, correction=0).clamp_min(_LEAST_SPREAD)
        self.train, self.asked = ((each - mean) / spread for each in (self.train, self.asked))

    def learned(self, numbers: Sequence[int]) -> Tensor:
        """The features of these rows of train."""
        return self.train[list(numbers)]


@torch.no_grad()
def _read(trunk: Trunk, texts: Sequence[list[int]], settings: FineTuning) -> Tensor:
    size = settings.train_batch
    parts = [trunk.features(texts[first : first + size], settings.pooling) for first in range(0, len(texts), size)]
    return torch.cat(parts)


def _tune(
    trunk: Trunk, head: nn.Linear, train: Rows, asked: Sequence[list[int]], settings: FineTuning, seed: int
) -> Tensor:
    """The whole copy learns; what it says afterwards."""
    model = trunk.model.train()
    parameters = [*model.parameters(), *head.parameters()]

    def features(numbers: Sequence[int]) -> Tensor:
        found = trunk.features([train.texts[number] for number in numbers], settings.pooling)
        return F.dropout(found, DROPOUT)

    _train(features, head, parameters, train, settings, seed, trunk.start_step)
    model.eval()
    with torch.no_grad():
        return head(_read(trunk, asked, settings)).cpu()


def _head(width: int, outputs: int, labels: Tensor, seed: int, device: torch.device) -> nn.Linear:
    """A score begins with the mean of those that are learned from."""
    head = nn.Linear(width, outputs)
    draw = torch.Generator().manual_seed(derive_seed("head", seed))
    with torch.no_grad():
        head.weight.normal_(0, _HEAD_SPREAD, generator=draw)
        head.bias.fill_(float(labels.mean()) if outputs == 1 else 0.0)
    return head.to(device)


def _train(
    features: Callable[[Sequence[int]], Tensor],
    head: nn.Linear,
    parameters: Iterator[nn.Parameter] | Sequence[nn.Parameter],
    train: Rows,
    settings: FineTuning,
    seed: int,
    start_step: Callable[[int], None],
) -> None:
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [each for each in learned if each.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in learned if each.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    labels = train.labels.to(head.weight.device)
    steps = settings.epochs * math.ceil(len(train.texts) / settings.train_batch)
    for step, numbers in enumerate(_batches(len(train.texts), settings, seed)):
        start_step(derive_seed("fine-tuning", seed, step))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _share_of_rate(step, steps)
        said, wanted = head(features(numbers)), labels[list(numbers)]
        loss = F.mse_loss(said[:, 0], wanted) if said.shape[1] == 1 else F.cross_entropy(said, wanted.long())
        if not math.isfinite(loss.item()):
            raise Damaged(
                f"fine-tuning from seed {seed} diverged at step {step + 1} of {steps}: its loss is no number; lower "
                "--learning-rate, or name an earlier checkpoint"
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, GRADIENT_CLIP)
        optimizer.step()


def _batches(rows: int, settings: FineTuning, seed: int) -> Iterator[list[int]]:
    for epoch in range(settings.epochs):
        draw = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
        order = torch.randperm(rows, generator=draw).tolist()
        for first in range(0, rows, settings.train_batch):
            yield order[first : first + settings.train_batch]


def _share_of_rate(step: int, steps: int) -> float:
    """A straight line up to 1 over the warm-up, and one down to 0."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup + 1))
