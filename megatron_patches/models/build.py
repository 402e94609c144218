"""From a list of layer specs to a module: a plain one for pp = 1, DeepSpeed's pipeline for pp > 1."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence

import torch
from deepspeed.pipe import LayerSpec as PipelineLayerSpec
from deepspeed.pipe import PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import Tensor, nn

from megatron_patches.models.layer_spec import LayerSpec
from megatron_patches.models.pipeline_partition import Stage
from megatron_patches.objectives.loss import LossFunction
from megatron_patches.objectives.micro_batch import PLAIN_CONTEXT, TokenContext
from megatron_patches.parallel.parameters import draw, info_of
from megatron_patches.parallel.process_groups import ProcessGroups

Stream = Tensor | tuple[Tensor, ...]
"""What goes from layer to layer: ids, hidden features or logits; where there is a context, a tuple with its tensors"""


class Layer(nn.Module):
    """A layer with its initial weights, in all the places that use it; its name stays with it."""

    def __init__(self, spec: LayerSpec, seed: int) -> None:
        super().__init__()
        self.spec = spec
        self.layer = spec.build()
        initialise(spec.name, self.layer, seed)

    def forward(self, stream: Stream, place: LayerSpec | None = None) -> Stream:
        """`place` is another spec of the same name, where the layer is used again."""
        hidden, *context = stream if isinstance(stream, tuple) else (stream,)
        hidden = (place or self.spec).run(self.layer, hidden, TokenContext.of(context))
        return (hidden, *context) if context else hidden


def leave(layer: Layer) -> None:
    """What becomes of a built layer: it stays as it is."""


class PlainModel(nn.Module):
    """All layers in one process: ids `[batch, sequence]` -> logits `[sequence, batch, vocabulary / tensor]`.

    `settle` is called with each layer as soon as it has its weights, so that no rank need hold all of them.
    """

    def __init__(self, specs: Sequence[LayerSpec], seed: int, settle: Callable[[Layer], None] = leave) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self._path: list[tuple[str, LayerSpec]] = []
        for spec in specs:
            key = spec.name.replace(".", "/")  # a ModuleDict takes no dots
            if key not in self.layers:
                layer = Layer(spec, seed)
                settle(layer)
                self.layers[key] = layer
            self._path.append((key, spec))

    def forward(self, ids: Tensor, context: TokenContext = PLAIN_CONTEXT) -> Tensor:
        stream: Stream = (ids, *context.tensors())
        for key, spec in self._path:
            stream = self.layers[key](stream, spec)
        return logits_only(stream)


class PartitionedPipeline(PipelineModule):
    """A PipelineModule whose stages are given: `partition_method` is the list of their boundaries."""

    def _partition_layers(self, method: list[int]) -> None:
        self.parts = method
        self._set_bounds(start=method[self.stage_id], stop=method[self.stage_id + 1])


def build_pipeline(
    specs: Sequence[LayerSpec],
    stages: Sequence[Stage],
    groups: ProcessGroups,
    loss: LossFunction,
    seed: int,
) -> PipelineModule:
    """This stage's layers, with their initial weights."""
    topology = PipeModelDataParallelTopology(
        num_pp=groups.layout.pipeline, num_mp=groups.layout.tensor, num_dp=groups.layout.data
    )
    layers = [_pipeline_spec(spec, seed) for spec in specs]
    with contextlib.redirect_stdout(io.StringIO()):  # PipelineModule prints its seed, which nothing here uses
        return PartitionedPipeline(
            [*layers, logits_only], topology=topology, loss_fn=loss, partition_method=stage_edges(specs, stages)
        )


def stage_edges(specs: Sequence[LayerSpec], stages: Sequence[Stage]) -> list[int]:
    """Boundaries of the stages in the list of specs, and behind it `logits_only`.

    A stage begins at the first layer it is planned to hold; specs without parameters stay with the one before them.
    """
    edges = [0]
    for stage in stages[1:]:
        edges.append(next(n for n, spec in enumerate(specs) if n > edges[-1] and spec.name == stage.layers[0]))
    return [*edges, len(specs) + 1]


def logits_only(stream: Stream) -> Tensor:
    """The end of every model: the context has served."""
    return stream[0] if isinstance(stream, tuple) else stream


def _pipeline_spec(spec: LayerSpec, seed: int) -> PipelineLayerSpec:
    if spec.shared_weight is None:
        return PipelineLayerSpec(Layer, spec, seed)
    return TiedLayerSpec(
        spec.name,
        Layer,
        spec,
        seed,
        forward_fn=lambda layer, stream: layer(stream, spec),
        tied_weight_attr=[f"layer.{spec.shared_weight}"],
    )


def canonical_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a plain model or of this pipeline stage, by its canonical name."""
    return {
        f"{layer.spec.name}.{name}": parameter
        for layer in _layers(module)
        for name, parameter in layer.layer.named_parameters()
    }


def _layers(module: nn.Module) -> Iterator[Layer]:
    return (layer for layer in module.modules() if isinstance(layer, Layer))


@torch.no_grad()
def initialise(prefix: str, layer: nn.Module, seed: int) -> None:
    """Draw every parameter by its canonical name."""
    for name, parameter in layer.named_parameters():
        values = draw(f"{prefix}.{name}", info_of(parameter), seed)
        parameter.copy_(values.view(parameter.shape))
