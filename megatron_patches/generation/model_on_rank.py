"""A checkpoint's model on one rank: what generator and scorer ask of it. All tensor-parallel ranks do it together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_patches.batch.fields import POSITIONS, TOKENS, VISIBLE, ModelInputs
from megatron_patches.errors import Refused
from megatron_patches.models.build import PlainModel
from megatron_patches.models.layers.key_value_cache import CachedPass, KeyValueCache
from megatron_patches.objectives.loss import log_probabilities
from megatron_patches.parallel.process_groups import ProcessGroups

FOLLOWING = ModelInputs((TOKENS, POSITIONS, VISIBLE), "ranges")
"""what a model is given to read where its tokens follow others that it has read"""
LEVEL = ModelInputs((TOKENS, POSITIONS), "full")
"""the same where all texts are of one length: a token sees all keys, and attention needs no mask"""


@dataclass(frozen=True)
class Texts:
    """Token ids of several texts from their beginnings, in CPU memory."""

    ids: Sequence[Sequence[int]]
    """one or more of each"""
    prefixes: Sequence[int]
    """how many ids of each, from the first, see each other whole, where the model was trained to read prefixes so"""

    def padded(self, device: torch.device) -> Tensor:
        """int64 `[texts, longest]`: what fills a text up is seen by none of its ids."""
        longest = max(map(len, self.ids))
        return torch.tensor([[*each, *[0] * (longest - len(each))] for each in self.ids], device=device)


class ModelOnRank:
    """The model, and the keys and values of the texts that it continues.

    Logits that it returns are fp32, of the whole vocabulary, and the same on every rank.

    Args:
        model: in its state for evaluation.
        reading: gives the same layers for other inputs; None where the architecture keeps no keys.
        known_ids: ids that stand for text; rows of the output matrix beyond them only pad it.
    """

    def __init__(
        self,
        model: PlainModel,
        reading: Callable[[ModelInputs], PlainModel] | None,
        groups: ProcessGroups,
        known_ids: int,
        reads_prefixes: bool,
    ) -> None:
        self._model = model
        self._following = None if reading is None else (reading(FOLLOWING), reading(LEVEL))
        self._groups = groups
        self.known_ids = known_ids
        self._reads_prefixes = reads_prefixes
        self._cache: KeyValueCache | None = None

    @torch.no_grad()
    def all_logits(self, texts: Texts) -> Tensor:
        """After each id of each text: `[texts, longest, vocabulary]`; those after a shorter text's end mean nothing."""
        return self._whole(self._model(self._inputs(texts))).transpose(0, 1)

    @torch.no_grad()
    def log_probabilities(self, texts: Texts, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities, in nats, of one id after each of these places of a text, and the likeliest id there.

        `places` and `labels` are int64 `[texts, n]`, the results fp32 and int64 of the same shape.
        """
        device = self._groups.device
        logits = self._model(self._inputs(texts), places.to(device))
        return log_probabilities(logits, labels.to(device), self._groups).cpu(), self._likeliest(logits).t().cpu()

    def begin(self, rows: int, places: int) -> None:
        """Makes room for keys and values, and forgets those that were kept.

        Args:
            rows: texts.
            places: most ids of each text.

        Raises:
            Refused: the model's architecture keeps none.
        """
        if self._following is None:
            raise Refused("the model's architecture keeps no keys and values, and cannot continue a text; score texts")
        self._cache = KeyValueCache(self._model, rows, places)

    def end(self) -> None:
        """Lets the keys and values go."""
        self._cache = None

    @torch.no_grad()
    def read(self, rows: Sequence[int] | None, texts: Texts) -> Tensor:
        """Reads the texts of these rows (None: all) from their beginnings, in place of what was there; the logits
        after the last id of each, `[rows, vocabulary]`.
        """
        assert self._cache is not None
        last = torch.tensor([[len(each) - 1] for each in texts.ids], device=self._groups.device)
        with self._cache.reading(CachedPass(self._numbers(rows))):
            return self._whole(self._model(self._inputs(texts), last))[0]

    @torch.no_grad()
    def follow(self, rows: Sequence[int] | None, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        """Reads one id of each of these rows (None: all) at its place; the logits after it, `[rows, vocabulary]`."""
        assert self._cache is not None and self._following is not None
        tokens, positions = torch.tensor([ids, places], device=self._groups.device)[:, :, None]
        inputs = {"tokens": tokens, "positions": positions}
        ranges, full = self._following
        level = min(places) == max(places)
        if not level:
            inputs["visible"] = torch.stack((torch.zeros_like(positions), positions + 1), dim=-1)
        with self._cache.reading(CachedPass(self._numbers(rows), positions, max(places) + 1, level)):
            return self._whole((full if level else ranges)(inputs))[0]

    def select(self, rows: Sequence[int]) -> None:
        """Goes on with these rows alone, in this order."""
        assert self._cache is not None
        self._cache.select(torch.tensor(rows, device=self._groups.device))

    def _numbers(self, rows: Sequence[int] | None) -> Tensor | None:
        return None if rows is None else torch.tensor(rows, device=self._groups.device)

    def _inputs(self, texts: Texts) -> dict[str, Tensor]:
        tokens = texts.padded(self._groups.device)
        if not self._reads_prefixes:
            return {"tokens": tokens}
        own = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        ends = own.maximum(torch.tensor(texts.prefixes, device=tokens.device)[:, None])
        return {"tokens": tokens, "visible": torch.stack((torch.zeros_like(ends), ends), dim=-1)}

    def _whole(self, here: Tensor) -> Tensor:
        """Logits of all ranks, `[..., vocabulary]`, from those of this one."""
        here = here.float()
        return torch.cat(self._of_all_ranks(here), dim=-1) if self._groups.layout.tensor > 1 else here

    def _of_all_ranks(self, here: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(here) for _ in range(self._groups.layout.tensor)]
        dist.all_gather(parts, here.contiguous(), group=self._groups.tensor_group)
        return parts

    def _likeliest(self, logits: Tensor) -> Tensor:
        """Of `[places, texts, vocabulary / tensor]` the likeliest id that stands for text, `[places, texts]`."""
        first = self._groups.coordinates.tensor * logits.shape[-1]
        known = max(0, min(logits.shape[-1], self.known_ids - first))
        if self._groups.layout.tensor == 1:
            return logits[..., :known].argmax(-1)
        value, place = logits[..., : max(1, known)].float().max(-1)
        values = torch.stack(self._of_all_ranks(value if known else torch.full_like(value, -torch.inf)))
        ids = torch.stack(self._of_all_ranks(place + first))
        return ids.gather(0, values.argmax(0, keepdim=True))[0]
