"""The ranks that hold a model together: the first one decides what is done, and the others do it with it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.errors import Refused
from megatron_patches.generation.model_on_rank import ModelOnRank, Texts
from megatron_patches.parallel.process_groups import ProcessGroups


class ModelRanks:
    """On the first rank a `ModelOnRank` whose every call is made on all ranks; on the others, `obey`.

    What is decided of logits is decided on the first rank alone, so ranks cannot disagree on an id.
    """

    groups: ProcessGroups
    """of the ranks that hold it"""

    def __init__(self, model: ModelOnRank, groups: ProcessGroups) -> None:
        self._model = model
        self.groups = groups

    @property
    def known_ids(self) -> int:
        """Ids that stand for text: those below it."""
        return self._model.known_ids

    def all_logits(self, texts: Texts) -> Tensor:
        """See `ModelOnRank`, as of all that follow."""
        return self._call("all_logits", texts)

    def log_probabilities(self, texts: Texts, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self._call("log_probabilities", texts, places, labels)

    def sample_sums(self, batch: MicroBatch) -> Tensor:
        return self._call("sample_sums", batch)

    def begin(self, rows: int, places: int) -> None:
        """See `ModelOnRank`.

        Raises:
            Refused: the model's architecture keeps no keys and values.
        """
        if not self._model.readings.keeps_keys:
            raise Refused("the model's architecture keeps no keys and values, and cannot continue a text; score texts")
        self._call("begin", rows, places)

    def end(self) -> None:
        self._call("end")

    def read(self, rows: Sequence[int] | None, texts: Texts) -> Tensor:
        return self._call("read", rows, texts)

    def follow(self, rows: Sequence[int] | None, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        return self._call("follow", rows, ids, places)

    def select(self, rows: Sequence[int]) -> None:
        self._call("select", rows)

    def release(self) -> None:
        """Ends `obey` on the other ranks: nothing more is asked of this model."""
        self._announce(None)

    def _call(self, name: str, *arguments: Any) -> Any:
        self._announce((name, arguments))
        return getattr(self._model, name)(*arguments)

    def _announce(self, call: tuple[str, tuple[Any, ...]] | None) -> None:
        if self.groups.layout.world_size > 1:
            self.groups.from_rank_0(call)

    def obey(self) -> None:
        """On the other ranks: does what the first one says, until that releases the model or this process is ended."""
        while (call := self.groups.from_rank_0(None)) is not None:
            name, arguments = call
            getattr(self._model, name)(*arguments)
