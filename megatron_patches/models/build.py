"""From a list of layer specs to a module: a plain one for pp = 1, DeepSpeed's pipeline for pp > 1."""

from collections.abc import Callable, Iterator, Sequence

import torch
from deepspeed.pipe import LayerSpec as PipelineLayerSpec
from deepspeed.pipe import PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import Tensor, nn

from megatron_patches.models.layer_spec import LayerForward, LayerSpec
from megatron_patches.parallel.parameters import draw, info_of
from megatron_patches.parallel.process_groups import ProcessGroups

LossFunction = Callable[[Tensor, tuple[Tensor, ...]], Tensor]


class PlainModel(nn.Module):
    """All layers in one process: ids `[batch, sequence]` -> logits `[sequence, batch, vocabulary / tensor]`."""

    def __init__(self, specs: Sequence[LayerSpec]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self._path: list[tuple[str, LayerForward | None]] = []
        for spec in specs:
            key = spec.name.replace(".", "/")  # a ModuleDict takes no dots
            if key not in self.layers:
                self.layers[key] = spec.build()
            self._path.append((key, spec.forward))

    def forward(self, ids: Tensor) -> Tensor:
        hidden = ids
        for key, forward in self._path:
            layer = self.layers[key]
            hidden = forward(layer, hidden) if forward else layer(hidden)
        return hidden

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(canonical prefix, layer), each once."""
        for key, layer in self.layers.items():
            yield key.replace("/", "."), layer


class PipelineLayer(nn.Module):
    """One layer of a pipeline: DeepSpeed builds it on its own stage only, and it keeps its canonical prefix."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.prefix = spec.name
        self.layer = spec.build()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.layer(hidden)


class PipelineBlock(PipelineLayer):
    """A layer that counts when stages are balanced: DeepSpeed partitions by the name of this class."""


def build_plain(specs: Sequence[LayerSpec], seed: int) -> PlainModel:
    """The whole model of this tensor-parallel rank, with its initial weights."""
    model = PlainModel(specs)
    initialise(dict(model.named_layers()), seed)
    return model


def build_pipeline(specs: Sequence[LayerSpec], groups: ProcessGroups, loss: LossFunction, seed: int) -> PipelineModule:
    """This stage's layers, with their initial weights; blocks are shared evenly between stages."""
    topology = PipeModelDataParallelTopology(
        num_pp=groups.layout.pipeline, num_mp=groups.layout.tensor, num_dp=groups.layout.data
    )
    module = PipelineModule(
        [_pipeline_spec(spec) for spec in specs],
        topology=topology,
        loss_fn=loss,
        partition_method=f"type:{PipelineBlock.__name__}",
    )
    initialise(dict(pipeline_layers(module)), seed)
    return module


def _pipeline_spec(spec: LayerSpec) -> PipelineLayerSpec:
    kind = PipelineBlock if spec.is_block else PipelineLayer
    if spec.shared_weight is None:
        return PipelineLayerSpec(kind, spec)
    run = spec.forward
    forward = (lambda module, hidden: run(module.layer, hidden)) if run else None
    return TiedLayerSpec(spec.name, kind, spec, forward_fn=forward, tied_weight_attr=[f"layer.{spec.shared_weight}"])


def pipeline_layers(module: PipelineModule) -> Iterator[tuple[str, nn.Module]]:
    """(canonical prefix, layer) of this stage, each once."""
    for layer in module.modules():
        if isinstance(layer, PipelineLayer):
            yield layer.prefix, layer.layer


@torch.no_grad()
def initialise(layers: dict[str, nn.Module], seed: int) -> None:
    """Draw every parameter by its canonical name."""
    for prefix, layer in layers.items():
        for name, parameter in layer.named_parameters():
            values = draw(f"{prefix}.{name}", info_of(parameter), seed)
            parameter.copy_(values.view(parameter.shape))
