"""Names that transformers reads as others: of a model that was saved without its head, and of a tied head. Torch-free."""

from collections.abc import Collection
from dataclasses import replace

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable
from megatron_patches.transformers_exchange.card.folder import StoredTensor, TransformersFolder


def with_base_prefix(folder: TransformersFolder, wanted: Collection[str]) -> TransformersFolder:
    """The folder with the names of a model with a head: `h.0.ln_1.weight`, which `GPT2Model` saves (and the hub's GPT-2
    and BLOOM have), is `transformer.h.0.ln_1.weight` there, as `from_pretrained` takes it.

    Args:
        wanted: names of the model with a head.

    Raises:
        Refused: a tensor is there under both names.
    """
    whole = {name.partition(".")[2]: name for name in wanted if name.count(".") > 1}
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in folder.tensors.items():
        there = name if name in wanted else whole.get(name, name)
        if there in tensors:
            raise Refused(f"{printable(folder.path)} has {printable(there)} twice, with and without its first part")
        tensors[there] = tensor
    return replace(folder, tensors=tensors)
