"""Made-up documents among those of the sources, at places that their number alone decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_tools.datasets.preprocessing.batch import MADE_UP, Batch, joined
from data_tools.domain_tokens.arithmetic_documents import arithmetic_document, documents_before
from data_tools.domain_tokens.report import InjectionCounts
from data_tools.text.document_encoding import EncodedTexts
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted


@dataclass(frozen=True)
class MadeUp:
    """Documents of multiplication facts, spread evenly over all others."""

    number: int
    """documents of the sources, which must be known before the first: progress in bytes jumps where files are small or
    compressed, and what was spread by it would come in heaps"""
    made: int
    seed: int
    encode: Callable[[Sequence[str]], EncodedTexts]
    """by the reference, as texts of the sources are"""

    def among(self, batch: Batch, before: int, made_before: int, counts: InjectionCounts) -> tuple[Batch, int]:
        """The documents of a batch with the made-up ones that stand in front of each, and how many these are.

        Args:
            before: documents of the sources before the batch.
            made_before: made-up documents before it.
            counts: what was put into them is added.
        """
        places: list[int] = []
        while (each := made_before + len(places)) < self.made:
            place = documents_before(each, self.number, self.made) - before
            if place >= batch.documents:
                break
            places.append(place)
        if not places:
            return batch, 0
        made = self._batch(made_before, len(places), counts)
        pieces, first = [], 0
        for each, place in enumerate(places):
            pieces += [batch.part(first, place), made.part(each, each + 1)]
            first = place
        return joined([*pieces, batch.part(first, batch.documents)]), len(places)

    def rest(self, before: int, made_before: int, counts: InjectionCounts) -> tuple[Batch | None, int]:
        """Those after the last document, and how many they are.

        Raises:
            TrainyardError: there were more or fewer documents than when they were counted.
        """
        if before != self.number:
            raise TrainyardError(
                f"the sources had {counted(self.number, 'document')} when they were counted, and {before:,} when they "
                "were read; run the command again once nothing writes to them"
            )
        left = self.made - made_before
        return (self._batch(made_before, left, counts) if left else None), left

    def _batch(self, first: int, count: int, counts: InjectionCounts) -> Batch:
        texts = [arithmetic_document(self.seed, each) for each in range(first, first + count)]
        return Batch.of(self.encode(texts), MADE_UP, counts)
