"""A pipeline as one writes it over torch.distributed: one forward, one backward, plain sends and receives."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.models.blueprint import Blueprint, LayerCall
from megatron_patches.models.build import BuiltLayer, stage_edges
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.objectives.loss import LossFunction
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.run.config import RunConfig


class StageModule(nn.Module):
    """The layers of one stage; a layer that is used twice in it is there once."""

    def __init__(self, calls: Sequence[LayerCall], blueprint: Blueprint) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self._path: list[tuple[str, LayerCall]] = []
        for call in calls:
            key = call.spec.name.replace(".", "/")
            if key not in self.layers:
                self.layers[key] = BuiltLayer(call, blueprint)
            self._path.append((key, call))

    def forward(self, stream: Tensor) -> Tensor:
        """Ids or the stream of the stage before; the stream or the logits."""
        for key, call in self._path:
            stream = self.layers[key](stream, call)
        return stream


class BarePipeline:
    """One rank's stage and its schedule, of a GPT. It sends one tensor: causal runs alone, no documents or prefixes."""

    def __init__(self, config: RunConfig, blueprint: Blueprint, loss: LossFunction) -> None:
        assert isinstance(config.model, GPTConfig), "`comparison` refuses pipelines of other architectures"
        groups, stages = blueprint.groups, config.stages
        edges = stage_edges([call.spec.name for call in blueprint.calls], stages)
        here = groups.coordinates.pipeline
        self.module = StageModule(blueprint.calls[edges[here] : edges[here + 1]], blueprint).to(groups.device)
        self._groups, self._loss, self._stage = groups, loss, here
        self._sent: list[tuple[dist.Work, Tensor]] = []
        self._tied = _tied_group(config.model, groups)
        apart = groups.layout.tensor * groups.layout.data
        self._before, self._behind = groups.rank - apart, groups.rank + apart
        tokens = config.lengths.of("tokens") // (groups.layout.tensor if groups.layout.sequence_parallel else 1)
        self._shape = (tokens, config.training.micro_batch_size, config.model.hidden_size)
        if self._tied is not None and here > 0:
            for parameter in self.module.layers["embedding"].parameters():
                parameter.ds_pipe_replicated = True  # type: ignore[attr-defined]  # counted by the first stage

    def tied(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, dist.ProcessGroup]:
        """The group of each parameter here that another stage holds too, by name."""
        if self._tied is None:
            return {}
        return {name: self._tied for name in parameters if name.startswith("embedding.")}

    def forward_backward(self, batches: Sequence[MicroBatch]) -> Tensor:
        """Gradients of all micro-batches; the loss, on the last stage, else zero."""
        waiting: list[tuple[Tensor | None, Tensor]] = []
        self._sent = []  # neighbours may send to each other at once: none may wait for the other
        losses = [torch.zeros((), device=self._groups.device)]
        ahead = min(self._groups.layout.pipeline - 1 - self._stage, len(batches))
        for number, batch in enumerate(batches):
            waiting.append(self._forward(batch, losses))
            if number >= ahead:
                self._backward(*waiting.pop(0))
        for read, made in waiting:
            self._backward(read, made)
        for work, _ in self._sent:
            work.wait()
        if self._tied is not None:
            for parameter in self.module.layers["embedding"].parameters():
                dist.all_reduce(parameter.grad, group=self._tied)
        return torch.stack(losses).sum()

    def _forward(self, batch: MicroBatch, losses: list[Tensor]) -> tuple[Tensor | None, Tensor]:
        read: Tensor | None = None
        if self._stage > 0:
            read = torch.empty(self._shape, dtype=self._groups.dtype, device=self._groups.device)
            dist.recv(read, self._before)
            read.requires_grad_(True)
        made = self.module(batch.inputs["tokens"] if read is None else read)
        if self._groups.last_stage:
            made = self._loss(made, (batch.labels, batch.weights))
            losses.append(made.detach())
        else:
            self._send(made.detach().contiguous(), self._behind)
        return read, made

    def _backward(self, read: Tensor | None, made: Tensor) -> None:
        if self._groups.last_stage:
            made.backward()
        else:
            gradient = torch.empty_like(made)
            dist.recv(gradient, self._behind)
            made.backward(gradient)
        if read is not None:
            assert read.grad is not None
            self._send(read.grad, self._before)

    def _send(self, tensor: Tensor, rank: int) -> None:
        work = dist.isend(tensor, rank)
        assert work is not None
        self._sent.append((work, tensor))


def _tied_group(model: GPTConfig, groups: ProcessGroups) -> dist.ProcessGroup | None:
    """The ranks of first and last stage that hold the same part of a tied table; None where there is none here."""
    if not model.tied_head:
        return None
    apart, found = groups.layout.tensor * groups.layout.data, None
    for first in range(apart):
        ranks = [first, first + apart * (groups.layout.pipeline - 1)]
        group = dist.new_group(ranks)
        if groups.rank in ranks:
            found = group
    return found
