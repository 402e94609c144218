"""The weights of a folder of transformers as an artefact of ours, from which runs begin, with the card that proves
it."""

import errno
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_tools.text.special_tokens import special_tokens
from megatron_patches.artefacts.descent import ORIGIN, origin_of
from megatron_patches.artefacts.folders import DATA_PARENTS
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, build_manifest, write_manifest
from megatron_patches.atomic_files import fsync_folder, hash_file, temporary_path
from megatron_patches.checkpoint.files.state_tensor import StateTensor, Stretch
from megatron_patches.checkpoint.identity import run_identity
from megatron_patches.checkpoint.offline.writing import OfflineContent, write_offline
from megatron_patches.checkpoint.starting_point import TOKENIZER_VOCABULARY
from megatron_patches.checkpoint.tokenizer_files.travelling import read_tokenizer
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.printable import printable
from megatron_patches.models.interface.transformers_format import TensorPair
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.parameters.torch_dtypes import STORED
from megatron_patches.run.reading import to_yaml
from megatron_patches.transformers_exchange.card.card import Card
from megatron_patches.transformers_exchange.card.folder import CONFIG_FILE
from megatron_patches.transformers_exchange.card.proof import prove, refuse_unprovable
from megatron_patches.transformers_exchange.card.source import open_source
from megatron_patches.transformers_exchange.card.text import card_text
from megatron_patches.transformers_exchange.import_plan import ImportPlan, tokenizer_of

FILE_BYTES = 4 << 30
"""of one file of the artefact, about: so that many ranks can read and hash it together"""
BY_BLOCK = 10**9
"""parameters from which on the card has one block of a model in memory at a time: 4 GB in fp32"""


@dataclass(frozen=True)
class CardRequest:
    """How the card is made."""

    command: str
    """as a person would write it to make the import again"""
    text: Path | None = None
    """whose tokens are compared; None: what `card_text` chooses"""
    by_block: bool = False
    """have one block in memory at a time; models of `BY_BLOCK` parameters always have"""


@dataclass(frozen=True)
class Imported:
    """What became of it."""

    folder: Path
    manifest: Manifest
    """whose `by.proof` is the card: it is no part of the id, which the card names"""
    card: Card


def require_transformers() -> None:
    """Raise Missing where the library that a card compares with is not installed."""
    if find_spec("transformers") is None:
        raise Missing(
            "the card of an import compares with transformers, which is not installed here: pip install "
            "-c constraints.txt transformers"
        )


def import_transformers(plan: ImportPlan, target: Path, request: CardRequest) -> Imported:
    """Write the weights into a new folder, in their own types, and prove that they are the same model.

    One tensor of ours is in memory at a time while they are written. The folder gets its name when the card is made.

    Args:
        target: the artefact's folder to be.

    Raises:
        NotEqual: the artefact and the folder do not compute the same.
        Refused: `target` exists.
        Damaged: the folder changed, or is shorter than its headers say.
        Missing: transformers is not installed.
        OSError: it cannot be written. Nothing is left behind in any of these cases.
    """
    require_transformers()
    if target.exists():
        raise _exists(target)
    fills = plan.found.format.task == "fill-mask"
    mask = special_tokens(plan.found.folder.path, plan.config.data.allow_invalid).mask if fills else None
    text = card_text(plan.config, tokenizer_of(plan), request.text, mask)
    refuse_unprovable(plan.config, text)
    tensors = _own_tensors(plan)
    whole = sum(tensor.elements * tensor.dtype.itemsize for tensor in tensors)
    stage = temporary_path(target)
    try:
        written = write_offline(stage, tensors, max(1, whole // FILE_BYTES), _content(plan))
        by_block = request.by_block or plan.elements >= BY_BLOCK
        source = open_source(stage, written)
        where, format = plan.found.folder.path, plan.found.format
        card = prove(source, where, format, plan.config, text, by_block, request.command, imported=True)
        proved = _with_card(stage, written, card)
        _put(stage, target)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    fsync_folder(target.parent)
    return Imported(target, proved, card)


def _put(stage: Path, target: Path) -> None:
    try:
        stage.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another import was quicker
            raise _exists(target) from None
        raise


def _exists(target: Path) -> Refused:
    return Refused(f"{printable(target)} exists; begin from it, or move it away")


def _with_card(folder: Path, written: Manifest, card: Card) -> Manifest:
    proved = build_manifest(
        written.kind, written.files, written.facts, written.parents, proof=card.model_dump(mode="json")
    )
    assert proved.id == written.id == card.source, "the card is of another artefact"
    write_manifest(folder / MANIFEST, proved)
    return proved


def _own_tensors(plan: ImportPlan) -> list[StateTensor]:
    joined = _JoinedTensors(plan)
    rows = {row.name: row for row in plan.config.parameters}
    return [joined.as_state(pair, rows[pair.ours]) for pair in plan.pairs]


class _JoinedTensors:
    """Our tensors, put together of theirs when they are read; the last one is kept, since it is read in pieces."""

    def __init__(self, plan: ImportPlan) -> None:
        self._tensors = plan.tensors
        self._last = lru_cache(maxsize=1)(self._join)

    def as_state(self, pair: TensorPair, row: ParameterRow) -> StateTensor:
        """What reads one of ours."""
        whole = TensorSlice.whole(row.shape)
        stretch = Stretch(whole, 0, row.elements, partial(self._read, _Whole(pair, row.shape)))
        return StateTensor(row.name, "weight", row.shape, STORED[self._tensors[pair.theirs[0]].dtype], (stretch,))

    def _read(self, whole: "_Whole", first: int, last: int) -> Tensor:
        return self._last(whole)[first:last]

    def _join(self, whole: "_Whole") -> Tensor:
        pair = whole.pair
        tensor = pair.join([self._tensors[name].read() for name in pair.theirs])
        if tuple(tensor.shape) != whole.shape:
            raise Damaged(f"{printable(pair.theirs[0])} has another shape than its header said")
        if not torch.isfinite(tensor).all():
            raise Refused(f"{', '.join(map(printable, pair.theirs))}: a number is NaN or infinite; name another folder")
        return tensor.reshape(-1)


@dataclass(frozen=True, eq=False)
class _Whole:
    pair: TensorPair
    shape: tuple[int, ...]


def _content(plan: ImportPlan) -> OfflineContent:
    known = [plan.known.id] if plan.known else []
    return OfflineContent(
        facts=_facts(plan),
        trainer=None,
        config=to_yaml(plan.config).encode(),
        parents=(*known, *plan.data.dataset_ids, plan.tokenizer_id),
        tokenizer=read_tokenizer(plan.found.folder.path, plan.tokenizer_id),
    )


def _facts(plan: ImportPlan) -> dict[str, Any]:
    """As a save of the run writes them, and where it came from."""
    config, folder, data = plan.config, plan.found.folder, plan.data
    facts = {
        "run": config.name,
        "launch": "import",
        **asdict(config.timetable.after(0)),
        "reason": "import",
        "content": "weights",
        "learning_rate": config.learning_rate(0),
        "next_learning_rate": config.learning_rate(1),
        "optimizer_steps": 0,
        "seed": config.training.seed,
        "layout": {"tensor": 1, "pipeline": 1, "data": 1},
        "identity": run_identity(config, data.identity_for(config.objective.token_roles), plan.tokenizer_id),
        DATA_PARENTS: len(data.dataset_ids) + 1,
        TOKENIZER_VOCABULARY: plan.tokenizer_vocabulary,
        "source": {
            "format": "transformers",
            "model_type": plan.found.format.model_type,
            "folder": folder.path.resolve().name,
            "config_sha256": hash_file(folder.path / CONFIG_FILE)[0],
            "tokenizer": plan.tokenizer_id,
        },
    }
    return facts | ({ORIGIN: origin_of(plan.known)} if plan.known else {})
