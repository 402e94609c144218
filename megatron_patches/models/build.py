"""From a blueprint to a module: a plain one for pp = 1, DeepSpeed's pipeline for pp > 1."""

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from deepspeed.pipe import LayerSpec as PipelineLayerSpec
from deepspeed.pipe import PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import Tensor, nn

from megatron_patches.batch.stream import Boundary, Stream
from megatron_patches.models.blueprint import Blueprint, LayerCall
from megatron_patches.models.interface.layer_spec import LOGITS
from megatron_patches.models.pipeline_partition import Stage
from megatron_patches.objectives.loss import LossFunction
from megatron_patches.parallel.layers import picked_features
from megatron_patches.parameters.info import ParameterInfo, describe, draw


class BuiltLayer(nn.Module):
    """A layer with its initial weights, wherever it is called; its name stays with it."""

    def __init__(self, call: LayerCall, blueprint: Blueprint) -> None:
        super().__init__()
        self.call = call
        self.layer = call.spec.build()
        initialise(call.spec.name, self.layer, blueprint)

    def forward(self, stream: Stream, call: LayerCall | None = None) -> Stream:
        """The stream behind it; `call` is another one where the layer is used again."""
        here = call or self.call
        return here.behind.pack(run(self, here, here.before.unpack(stream)))


def run(layer: BuiltLayer, call: LayerCall, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are needed behind a layer, from those before it."""
    spec = call.spec
    output = spec.run(layer.layer, [tensors[name] for name in spec.reads])
    known = {**tensors, spec.writes.name: output}
    return {name: known[name] for name in call.behind.names}


def keep_as_built(layer: BuiltLayer) -> None:
    """What becomes of a built layer: it stays as it is."""


class PlainModel(nn.Module):
    """All layers in one process: the inputs that were declared -> logits `[places, batch, vocabulary / tensor]`.

    Of a stage's blueprint (`of_this_stage`) they are the layers of that stage. They read the fields in front of the
    first of them, and only the last stage gives logits; what the others give is `behind` them.

    `finish` is called with each layer as soon as it has its weights, so that no rank need hold all of them.
    """

    def __init__(self, blueprint: Blueprint, finish: Callable[[BuiltLayer], None] = keep_as_built) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self._path: list[tuple[str, LayerCall]] = []
        for call in blueprint.calls:
            key = call.spec.name.replace(".", "/")  # a ModuleDict takes no dots
            if key not in self.layers:
                layer = BuiltLayer(call, blueprint)
                finish(layer)
                self.layers[key] = layer
            self._path.append((key, call))

    def reading(self, blueprint: Blueprint) -> "PlainModel":
        """The same layers for other inputs: those of the blueprint, which is otherwise that of this model."""
        other = copy.copy(self)
        calls = blueprint.calls
        other._path = [(key, _without_builder(call)) for (key, _), call in zip(self._path, calls, strict=True)]
        return other

    def forward(self, inputs: Mapping[str, Tensor], places: Tensor | None = None) -> Tensor:
        """Logits of all places of the inputs, or of these alone: int64 `[batch, places]`."""
        return self.head(self.trunk(inputs), places)

    def trunk(self, inputs: Mapping[str, Tensor]) -> Stream:
        """The stream in front of the last layer, which `head` takes as often as logits of other places are wanted."""
        return self._through(self._path[:-1], inputs)

    def behind(self, inputs: Mapping[str, Tensor]) -> Stream:
        """The stream behind the last layer, which the next stage reads."""
        return self._through(self._path, inputs)

    def _through(self, path: Sequence[tuple[str, LayerCall]], inputs: Mapping[str, Tensor]) -> Stream:
        stream = self.before.pack(inputs)
        for key, call in path:
            stream = self.layers[key](stream, call)
        return stream

    @property
    def before(self) -> Boundary:
        """What the first layer reads, and what is needed behind it."""
        return self._path[0][1].before

    def head(self, stream: Stream, places: Tensor | None = None) -> Tensor:
        """Logits of all places of a stream that `trunk` gave, or of these alone, as `forward` has them."""
        if places is not None:
            stream = _at_places(stream, places)
        key, call = self._path[-1]
        stream = self.layers[key](stream, call)
        assert isinstance(stream, Tensor), f"behind the last layer there is more than {LOGITS.name}"
        return stream


def _without_builder(call: LayerCall) -> LayerCall:
    """A call of a layer that is built: what a second builder holds, such as ALiBi's biases, is let go."""

    def build() -> nn.Module:
        raise AssertionError(f"{call.spec.name} is built already")

    return replace(call, spec=replace(call.spec, build=build))


def _at_places(stream: Stream, places: Tensor) -> Tensor:
    """`[tokens, batch, hidden]` -> `[places, batch, hidden]`."""
    assert isinstance(stream, Tensor), "in front of the last layer there is more than the residual stream"
    return picked_features(stream, places)


class PartitionedPipeline(PipelineModule):
    """A PipelineModule whose stages are given: `partition_method` is the list of their boundaries."""

    def _partition_layers(self, method: list[int]) -> None:
        self.parts = method
        self._set_bounds(start=method[self.stage_id], stop=method[self.stage_id + 1])


def build_pipeline(blueprint: Blueprint, stages: Sequence[Stage], loss: LossFunction) -> PipelineModule:
    """This stage's layers, with their initial weights."""
    layout = blueprint.groups.layout
    topology = PipeModelDataParallelTopology(num_pp=layout.pipeline, num_mp=layout.tensor, num_dp=layout.data)
    layers = [_pipeline_spec(call, blueprint) for call in blueprint.calls]
    edges = stage_edges([call.spec.name for call in blueprint.calls], stages)
    with contextlib.redirect_stdout(io.StringIO()):  # PipelineModule prints its seed, which nothing here uses
        return PartitionedPipeline(layers, topology=topology, loss_fn=loss, partition_method=edges)


def of_this_stage(blueprint: Blueprint, stages: Sequence[Stage]) -> Blueprint:
    """The part of a blueprint that this rank's pipeline stage holds."""
    edges = stage_edges([call.spec.name for call in blueprint.calls], stages)
    here = blueprint.groups.coordinates.pipeline
    return replace(blueprint, calls=blueprint.calls[edges[here] : edges[here + 1]])


def stage_edges(names: Sequence[str], stages: Sequence[Stage]) -> list[int]:
    """Boundaries of the stages in the list of specs, by their names in order.

    The specs that have parameters are the planned layers, one for one; those without stay with the one before them.
    """
    planned = [layer for stage in stages for layer in stage.layers]
    indices: list[int] = []
    for number, name in enumerate(names):
        if len(indices) < len(planned) and name == planned[len(indices)]:
            indices.append(number)
    assert len(indices) == len(planned), f"these layers are not those that the stages were planned of: {names}"
    edges, first = [0], 0
    for stage in stages[:-1]:
        first += len(stage.layers)
        edges.append(indices[first])
    return [*edges, len(names)]


def _pipeline_spec(call: LayerCall, blueprint: Blueprint) -> PipelineLayerSpec:
    spec = call.spec
    if spec.shared_weight is None:
        return PipelineLayerSpec(BuiltLayer, call, blueprint)
    return TiedLayerSpec(
        spec.name,
        BuiltLayer,
        call,
        blueprint,
        forward_fn=lambda layer, stream: layer(stream, call),
        tied_weight_attr=[f"layer.{spec.shared_weight}"],
    )


def canonical_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a plain model or of this pipeline stage, by its canonical name."""
    return {
        f"{layer.call.spec.name}.{name}": parameter
        for layer in _layers(module)
        for name, parameter in layer.layer.named_parameters()
    }


def _layers(module: nn.Module) -> Iterator[BuiltLayer]:
    return (layer for layer in module.modules() if isinstance(layer, BuiltLayer))


@torch.no_grad()
def initialise(prefix: str, layer: nn.Module, blueprint: Blueprint) -> None:
    """Describe every parameter by its row, and draw it by its canonical name, if there is a seed."""
    groups = blueprint.groups
    for name, parameter in layer.named_parameters():
        row = blueprint.rows.get(f"{prefix}.{name}")
        assert row is not None, f"{prefix}.{name} is not in the architecture's table of parameters"
        layout = groups.layout
        info = ParameterInfo.on_rank(row, groups.coordinates.tensor, layout.tensor, layout.sequence_parallel)
        describe(parameter, info)
        if blueprint.seed is not None:
            parameter.copy_(draw(row, info.slice, blueprint.seed).view(parameter.shape))
