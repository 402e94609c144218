"""The loop of a peer of another make: forward, backward, clip, step over a model that is not a run's own.

As one writes it in plain PyTorch: fp32 weights, bf16 autocast where the run is in bf16, fused AdamW, `torch.compile` of
the whole model on a GPU. Its weights are drawn in another way than a run's, so losses are near each other, not equal.
"""

from abc import ABC, abstractmethod
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.errors import TrainyardError
from megatron_patches.optim.optimizer_config import AdamWConfig
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.run.config import RunConfig


class OtherModelLoop(ABC):
    """Its steps on one process.

    Raises:
        TrainyardError: the measurement has several processes.
    """

    def __init__(
        self, config: RunConfig, groups: ProcessGroups, batches: list[list[MicroBatch]], model: nn.Module
    ) -> None:
        assert isinstance(config.optimizer, AdamWConfig), "the peer's own check has refused other optimizers"
        if groups.layout.world_size > 1:
            raise TrainyardError("a peer of another make runs on one process: parallel.tensor 1, parallel.pipeline 1")
        self._config, self._batches, self._device = config, batches, groups.device
        self._model = model.to(groups.device)
        matrices = [parameter for parameter in self._model.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in self._model.parameters() if parameter.dim() == 1]
        rule = config.optimizer
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": rule.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=rule.learning_rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon, fused=True,
        )  # fmt: skip
        self._forward = torch.compile(self._model) if groups.device.type == "cuda" else self._model
        self._losses: list[Tensor] = []

    @abstractmethod
    def _loss(self, batch: MicroBatch) -> Tensor:
        """Part of the step's loss that a micro-batch on this device has."""

    def step(self) -> None:
        """One optimizer step."""
        config, step = self._config, len(self._losses) + 1
        half = config.training.precision == "bf16"
        losses = []
        for each in self._batches[step - 1]:
            batch = each.to(self._device)
            with torch.autocast(self._device.type, dtype=torch.bfloat16) if half else nullcontext():
                loss = self._loss(batch)
            loss.backward()
            losses.append(loss.detach())
        if config.optimizer.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), config.optimizer.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate(step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._losses.append(torch.stack(losses).sum())

    def losses(self) -> list[float]:
        """Losses of all steps so far."""
        return torch.stack(self._losses).tolist()
