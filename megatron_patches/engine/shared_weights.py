"""ZeRO 3: every layer's weights are shared by the data-parallel ranks as soon as they are drawn."""

from collections.abc import Callable

import deepspeed

from megatron_patches.models.build import BuiltLayer
from megatron_patches.parallel.process_groups import ProcessGroups


def share_weights(groups: ProcessGroups) -> Callable[[BuiltLayer], None]:
    """For `PlainModel`: so one layer at a time is whole on the device, and never the model.

    DeepSpeed gathers a module's weights when the module is called. Some are read past it: the token embedding's by a
    tied head, a linear layer's by `parallel.layers`. DeepSpeed notices that in the first forward pass, gathers them
    there, and from then on with the module that reads them (a test has matrices too large to be kept whole).
    """

    def share(layer: BuiltLayer) -> None:
        deepspeed.zero.Init(module=layer, data_parallel_group=groups.data_group)

    return share
