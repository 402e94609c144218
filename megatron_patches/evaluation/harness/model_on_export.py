"""A run's export as lm-eval's own command line loads it: `lm_eval --model hf --model_args pretrained=FOLDER`."""

from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from megatron_patches.errors import Missing, Refused
from megatron_patches.evaluation.harness.surroundings import quiet
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable
from megatron_patches.transformers_exchange.card.folder import CONFIG_FILE
from megatron_patches.transformers_exchange.choice import format_of

_DEVICE = "cuda:0"
"""the command line's; lm-eval takes the CPU where there is none"""


def load_export(folder: Path, length: int | None, batch_size: int | None) -> HFLM:
    """The model of an export, in the precision of its files, on the first GPU, or on the CPU where there is none.

    Args:
        length: most ids that it sees at once; None means as many as its `config.json` says.
        batch_size: texts that it reads at once; None means the command line's, 1.

    Raises:
        Missing: no export is there.
        Refused: `length` is more than there are learned positions.
    """
    if not is_file(folder / CONFIG_FILE):
        raise Missing(f"{printable(folder)} has no {CONFIG_FILE}: it is no export; make one with tools/checkpoint")
    arguments: dict[str, Any] = {"pretrained": str(folder.absolute())}
    if length is not None:
        _refuse_length(folder, length)
        arguments["max_length"] = length
    with quiet(lambda text: None):
        return HFLM.create_from_arg_obj(arguments, {"batch_size": batch_size or 1, "device": _DEVICE})


def _refuse_length(folder: Path, length: int) -> None:
    path = folder / CONFIG_FILE
    config = parse_object(read_bounded(path), printable(path))
    _, format = format_of(str(config.get("model_type")))
    read = format.read(config)
    positions = read.section.get("position_embedding", "learned")
    if positions == "learned" and read.positions is not None and length > read.positions:
        raise Refused(
            f"length {length:,}: the model has learned its positions, and they end after {read.positions:,}; ask for "
            f"at most {read.positions:,} (rotary and ALiBi positions know no such bound)"
        )
