"""A tied head that a folder stores once more beside its table of tokens, as many on the hub do. Torch-free."""

from collections.abc import Iterable
from dataclasses import replace

from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.printable import printable
from megatron_patches.models.interface.transformers_format import TensorPair, TransformersFormat
from megatron_patches.transformers_exchange.card.folder import CONFIG_FILE, StoredTensor, TransformersFolder

HEAD = "lm_head.weight"
_PIECE = 1 << 20
"""bytes of each tensor in memory at a time: the table of BLOOM-176B has 7 GB"""


def without_tied_copy(
    folder: TransformersFolder, format: TransformersFormat, pairs: Iterable[TensorPair]
) -> TransformersFolder:
    """The folder without the copy of a tied head: a model whose head is tied has no parameter for it.

    Args:
        folder: by the names that the format knows.
        pairs: of the model; one of them holds the head where it is not tied.

    Raises:
        Refused: the head differs from the table in a bit. transformers would untie them, and `config.json` would say
            otherwise than what it computes.
        Damaged: a file is shorter than its header says, or cannot be read.
    """
    head, table = folder.tensors.get(HEAD), folder.tensors.get(format.table)
    if head is None or table is None or any(HEAD in pair.theirs for pair in pairs):
        return folder
    if (head.dtype, head.shape) != (table.dtype, table.shape) or not _same_bytes(head, table):
        raise Refused(
            f"{printable(folder.path)}: {HEAD} differs from {format.table}, and {CONFIG_FILE} ties them, so which of "
            "them its model has is not known. Set tie_word_embeddings to false there if the head was trained apart; "
            "else save the model again (save_pretrained)"
        )
    return replace(folder, tensors={name: each for name, each in folder.tensors.items() if name != HEAD})


def _same_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    return all(
        _read(one, start, size) == _read(other, start, size)
        for start in range(0, one.size, _PIECE)
        for size in [min(_PIECE, one.size - start)]
    )


def _read(tensor: StoredTensor, start: int, size: int) -> bytes:
    with open_plain(tensor.file) as file:
        file.seek(tensor.offset + start)
        content = file.read(size)
    if len(content) != size:
        raise Damaged(f"{tensor.told}: the file is shorter than it was; fetch it again")
    return content
