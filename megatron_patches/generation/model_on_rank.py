"""A checkpoint's model on one rank: what generator and scorer ask of it. All ranks that hold it do it together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_patches.batch.fields import POSITIONS, TOKENS, VISIBLE, ModelInputs
from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.generation.stage_messages import StageMessages
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
    """Token ids of several texts from their beginnings, in CPU memory. Where all tokens see each other the texts are of
    one length: they would see what fills up a shorter one."""

    ids: Sequence[Sequence[int]]
    """one or more of each"""
    prefixes: Sequence[int]
    """how many ids of each, from the first, see each other whole, where the model was trained to read prefixes so"""

    def padded(self, device: torch.device) -> Tensor:
        """int64 `[texts, longest]`: what fills a text up is seen by none of its ids."""
        longest = max(map(len, self.ids))
        return torch.tensor([[*each, *[0] * (longest - len(each))] for each in self.ids], device=device)


@dataclass(frozen=True)
class Readings:
    """What a model may be given to read."""

    samples: ModelInputs
    """of its objective"""
    texts: ModelInputs | None
    """a text that is scored or continued, or whose tokens all see each other; None where the objective knows none"""
    keeps_keys: bool
    """whether the architecture continues texts token by token"""


class ModelOnRank:
    """The layers of this rank's stage, and the keys and values of the texts that they continue.

    What its calls return is on the first rank, and the same on all ranks of the last stage; None on all others. Logits
    are fp32, of the whole vocabulary.

    Args:
        model: in its state for evaluation, reading what `read_as` was first asked for.
        read_as: gives the same layers for other inputs.
        known_ids: ids that stand for text; rows of the output matrix beyond them only pad it.
    """

    def __init__(
        self,
        model: PlainModel,
        read_as: Callable[[ModelInputs], PlainModel],
        readings: Readings,
        groups: ProcessGroups,
        known_ids: int,
    ) -> None:
        self._model = model
        self._read_as = read_as
        self.readings = readings
        self._groups = groups
        self.known_ids = known_ids
        self._reading: dict[ModelInputs, PlainModel] = {}
        self._messages = StageMessages(groups)
        self._cache: KeyValueCache | None = None

    @torch.no_grad()
    def all_logits(self, texts: Texts) -> Tensor | None:
        """After each id of each text: `[texts, longest, vocabulary]`; those after a shorter text's end mean nothing."""
        whole = self._whole(self._read_texts(texts))
        return self._one_at_first(None if whole is None else whole.transpose(0, 1))

    @torch.no_grad()
    def log_probabilities(self, texts: Texts, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Log-probabilities, in nats, of one id after each of these places of a text, and the likeliest id there.

        `places` and `labels` are int64 `[texts, n]`, the results fp32 and int64 of the same shape.
        """
        device = self._groups.device
        logits, found = self._read_texts(texts, places.to(device)), None
        if logits is not None:
            found = log_probabilities(logits, labels.to(device), self._groups), self._likeliest(logits).t()
        result = self._messages.at_first(found, 2)
        return None if result is None else (result[0].cpu(), result[1].cpu())

    def sample_sums(self, batch: MicroBatch) -> Tensor | None:
        """Of each sample of the run's objective the sum over its targets of weight x negative log-likelihood in nats,
        without what training adds to it, and that of the weights: fp64 `[samples, 2]`.
        """
        return self._one_at_first(self.sample_sums_here(batch))

    @torch.no_grad()
    def sample_sums_here(self, batch: MicroBatch) -> Tensor | None:
        """The same on the ranks of the last stage alone: no other one waits for it, and the first stage goes on."""
        here = batch.to(self._groups.device)
        logits = self._pass(self.readings.samples, here.inputs)
        if logits is None:
            return None
        losses = -log_probabilities(logits, here.labels, self._groups).double()
        weights = here.weights.double()
        return torch.stack(((losses * weights).sum(1), weights.sum(1)), dim=1)

    def begin(self, rows: int, places: int) -> None:
        """Makes room for keys and values, and forgets those that were kept.

        Args:
            rows: texts.
            places: most ids of each text.
        """
        self._cache = KeyValueCache(self._model, rows, places)

    def end(self) -> None:
        """Lets the keys and values go."""
        self._cache = None

    @torch.no_grad()
    def read(self, rows: Sequence[int] | None, texts: Texts) -> Tensor | None:
        """Reads the texts of these rows (None: all) from their beginnings, in place of what was there; the logits
        after the last id of each, `[rows, vocabulary]`.
        """
        assert self._cache is not None
        last = torch.tensor([[len(each) - 1] for each in texts.ids], device=self._groups.device)
        with self._cache.reading(CachedPass(self._numbers(rows))):
            return self._after_last(self._read_texts(texts, last))

    @torch.no_grad()
    def follow(self, rows: Sequence[int] | None, ids: Sequence[int], places: Sequence[int]) -> Tensor | None:
        """Reads one id of each of these rows (None: all) at its place; the logits after it, `[rows, vocabulary]`."""
        assert self._cache is not None
        tokens, positions = torch.tensor([ids, places], device=self._groups.device)[:, :, None]
        inputs = {"tokens": tokens, "positions": positions}
        level = min(places) == max(places)
        if not level:
            inputs["visible"] = torch.stack((torch.zeros_like(positions), positions + 1), dim=-1)
        with self._cache.reading(CachedPass(self._numbers(rows), positions, max(places) + 1, level)):
            return self._after_last(self._pass(LEVEL if level else FOLLOWING, inputs))

    def select(self, rows: Sequence[int]) -> None:
        """Goes on with these rows alone, in this order."""
        assert self._cache is not None
        self._cache.select(torch.tensor(rows, device=self._groups.device))

    def _numbers(self, rows: Sequence[int] | None) -> Tensor | None:
        return None if rows is None else torch.tensor(rows, device=self._groups.device)

    def _read_texts(self, texts: Texts, places: Tensor | None = None) -> Tensor | None:
        inputs, tokens = self.readings.texts, texts.padded(self._groups.device)
        assert inputs is not None, "the objective knows no texts"
        if not inputs.has(VISIBLE):
            return self._pass(inputs, {"tokens": tokens}, places)
        own = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        ends = own.maximum(torch.tensor(texts.prefixes, device=tokens.device)[:, None])
        visible = torch.stack((torch.zeros_like(ends), ends), dim=-1)
        return self._pass(inputs, {"tokens": tokens, "visible": visible}, places)

    def _pass(self, inputs: ModelInputs, tensors: Mapping[str, Tensor], places: Tensor | None = None) -> Tensor | None:
        """Through the layers of this stage: on the last one the logits that this rank has of all places, or of these,
        `[places, batch, vocabulary / tensor]`; None on the others.
        """
        model = self._reading.get(inputs)
        if model is None:
            model = self._reading[inputs] = self._read_as(inputs)
        if self._groups.coordinates.pipeline > 0:
            names = model.before.names
            tensors = dict(zip(names, self._messages.take_over(len(names)), strict=True))
        if self._groups.last_stage:
            return model(tensors, places)
        stream = model.behind(tensors)
        self._messages.send_on(stream if isinstance(stream, tuple) else (stream,))
        return None

    def _after_last(self, here: Tensor | None) -> Tensor | None:
        """Of logits of one place of each text, `[rows, vocabulary]`."""
        whole = self._whole(here)
        return self._one_at_first(None if whole is None else whole[0])

    def _one_at_first(self, found: Tensor | None) -> Tensor | None:
        result = self._messages.at_first(None if found is None else (found,), 1)
        return None if result is None else result[0]

    def _whole(self, here: Tensor | None) -> Tensor | None:
        """Logits of all tensor-parallel ranks, `[..., vocabulary]`, from those of this one."""
        if here is None:
            return None
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
