"""Texts that are left out for what they are, each counted under the filter that removed it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.characters import CharacterCounts
from data_tools.plans.extents import Stretches
from data_tools.plans.samples_config import FiltersConfig


class Filters:
    """What a section asks for.

    Args:
        characters: None where no filter looks at them.
    """

    def __init__(self, config: FiltersConfig, characters: CharacterCounts | None) -> None:
        self._config = config
        self._characters = characters
        self.removed: dict[str, int] = dict.fromkeys(config.given, 0)
        """texts so far, by the filter that removed them, the first that applied"""

    def keep(self, texts: Stretches) -> Stretches:
        """Those that stay, of texts in file order, none of them empty."""
        kept = self._apply(texts, self._by_tokens(texts))
        return self._apply(kept, self._by_characters(kept))

    def _apply(self, texts: Stretches, found: Iterator[tuple[str, NDArray[np.bool_]]]) -> Stretches:
        stays = np.ones(len(texts.starts), dtype=bool)
        for name, removed in found:
            self.removed[name] += int(np.count_nonzero(stays & removed))
            stays &= ~removed
        return texts.where(stays)

    def _by_tokens(self, texts: Stretches) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        if self._config.minimum_tokens is not None:
            yield "minimum_tokens", texts.lengths < self._config.minimum_tokens
        if self._config.maximum_tokens is not None:
            yield "maximum_tokens", texts.lengths > self._config.maximum_tokens

    def _by_characters(self, texts: Stretches) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """A text without any characters, such as a document's end alone, has shares of 0."""
        if not self._config.read_characters:
            return
        assert self._characters is not None
        characters, punctuation, non_alphanumeric, upper_case = self._characters.of(texts)
        if self._config.minimum_characters is not None:
            yield "minimum_characters", characters < self._config.minimum_characters
        limits = (
            ("maximum_punctuation", punctuation, self._config.maximum_punctuation),
            ("maximum_non_alphanumeric", non_alphanumeric, self._config.maximum_non_alphanumeric),
            ("maximum_upper_case", upper_case, self._config.maximum_upper_case),
        )
        for name, count, limit in limits:
            if limit is not None:
                # a quotient, as the limit is the nearest number to a quotient: 29 of 100 is not more than 0.29
                yield name, count / np.maximum(characters, 1) > limit
