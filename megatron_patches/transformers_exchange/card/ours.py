"""A checkpoint's model in fp32, from its weights as they are stored: all of it, or one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from megatron_patches.batch.fields import TOKENS, ModelInputs
from megatron_patches.models.blueprint import Blueprint, draw_up
from megatron_patches.models.build import BuiltLayer, PlainModel
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups, stop_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.source import Source

_CAUSAL = ModelInputs((TOKENS,), "causal")
"""what a causal model of transformers reads; a model trained with prefixes reads a text without one so"""


class OurModel:
    """Logits of a checkpoint's model."""

    def __init__(self, source: Source, config: RunConfig, groups: ProcessGroups, by_block: bool) -> None:
        self._vocabulary = config.model.vocabulary
        self.device = groups.device
        finish = _LayersInTurn(source, groups.device).leave if by_block else _Loader(source, groups.device).fill
        self._model = PlainModel(_undrawn(config, groups), finish).eval()

    @torch.no_grad()
    def logits(self, ids: Tensor, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """fp32 `[samples, places, vocabulary]` of ids `[samples, positions]`, for each part of the places (int64
        `[places]`); only one part is in memory. Rows that only pad are left out."""
        stream = self._model.trunk({"tokens": ids.to(self.device)})
        for places in parts:
            logits = self._model.head(stream, places.to(self.device).expand(len(ids), -1))
            yield logits[..., : self._vocabulary].transpose(0, 1)
            del logits


@contextmanager
def our_model(source: Source, config: RunConfig, by_block: bool) -> Iterator[OurModel]:
    """The model, in process groups of one process that are left at the end."""
    groups = start_process_groups(Layout(1, 1, 1), torch.float32, alone=True)
    try:
        yield OurModel(source, config, groups, by_block)
    finally:
        stop_process_groups()


def _undrawn(config: RunConfig, groups: ProcessGroups) -> Blueprint:
    """The model's blueprint; no initial weights are drawn, since stored ones take their place."""
    randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
    inputs = config.objective.text_inputs or _CAUSAL
    return draw_up(config.model, config.lengths, inputs, groups, randomness, seed=None)


class _Loader:
    """Gives layers their stored weights."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source, self._device = source, device

    def fill(self, layer: BuiltLayer) -> None:
        """The weights of one layer."""
        for name, parameter in layer.layer.named_parameters():
            stored = self._source.read(f"{layer.call.spec.name}.{name}")
            parameter.data = stored.to(self._device, torch.float32).view(parameter.shape)
        layer.to(self._device)  # buffers


class _LayersInTurn:
    """Layers that have their weights only while they run; a shared one takes them again in each of its places."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source, self._device = source, device

    def leave(self, layer: BuiltLayer) -> None:
        """Frees a layer that was just built."""
        shapes = {name: parameter.shape for name, parameter in layer.layer.named_parameters()}

        def load(module: nn.Module, inputs: object) -> None:
            for name, parameter in layer.layer.named_parameters():
                stored = self._source.read(f"{layer.call.spec.name}.{name}")
                parameter.data = stored.to(self._device, torch.float32).view(shapes[name])

        def free(*ignored: object) -> None:
            for parameter in layer.layer.parameters():
                parameter.data = torch.empty(0, device=self._device)

        layer.to(self._device)
        free()
        layer.register_forward_pre_hook(load)
        layer.register_forward_hook(free)
