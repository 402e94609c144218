"""Keys and values of tokens that a model has read, kept for the tokens that follow them.

A token's place in the cache is its position, also in a batch of texts of different lengths. A text never sees what lies
after its end, and its next tokens overwrite that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class CachedPass:
    """Which tokens of which texts a forward pass reads."""

    rows: Tensor | None
    """int64 `[batch]`: rows of the cache; None: all of them, in their order"""
    places: Tensor | None = None
    """int64 `[batch, tokens]`: places of the tokens; None: the texts are read from their beginning"""
    used: int = 0
    """places of the cache that the tokens see at most; only with `places`"""
    level: bool = False
    """whether the places are the last of these in all texts: a slice of the cache, and no indices, says where they
    are; only with `places`"""


class LayerCache:
    """What one attention layer keeps: keys and values, each `[rows, groups here, places, feature]`."""

    def __init__(self, rows: int, places: int) -> None:
        self._size = rows, places
        self._kept: tuple[Tensor, Tensor] | None = None
        self.current = CachedPass(None)
        """what the model reads now"""

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the keys and values of new tokens, `[batch, groups here, tokens, feature]`; returns all that they see.

        A text that is read from its beginning sees its own tokens alone.
        """
        keys, values = self._kept = self._kept or (self._room_for(key), self._room_for(value))
        return self._keep(keys, key), self._keep(values, value)

    def _room_for(self, new: Tensor) -> Tensor:
        rows, places = self._size
        return new.new_zeros(rows, new.shape[1], places, new.shape[3])

    def _keep(self, kept: Tensor, new: Tensor) -> Tensor:
        now, count = self.current, new.shape[2]
        rows = slice(None) if now.rows is None else now.rows
        if now.places is None:
            kept[rows, :, :count] = new
            return new
        if now.level:
            kept[rows, :, now.used - count : now.used] = new
        elif now.rows is None:
            kept.scatter_(2, now.places[:, None, :, None].expand_as(new), new)
        else:
            kept[now.rows[:, None], :, now.places] = new.transpose(1, 2)
        return kept[rows, :, : now.used]

    def select(self, rows: Tensor) -> None:
        """Keeps these rows alone, in this order."""
        if self._kept is not None:
            keys, values = self._kept
            self._kept = keys[rows], values[rows]


class CachingAttention(nn.Module):
    """Attention whose keys and values can be kept."""

    cache: LayerCache | None = None
    """what its forward pass keeps them in; None in training, where none are kept"""


class KeyValueCache:
    """Of every attention layer of a model on this rank.

    Args:
        rows: texts that are read together.
        places: most tokens of a text.
    """

    def __init__(self, model: nn.Module, rows: int, places: int) -> None:
        self._layers = {
            module: LayerCache(rows, places) for module in model.modules() if isinstance(module, CachingAttention)
        }

    @contextmanager
    def reading(self, now: CachedPass) -> Iterator[None]:
        """Within it, the model's forward pass keeps and sees keys and values so."""
        for module, layer in self._layers.items():
            layer.current = now
            module.cache = layer
        try:
            yield
        finally:
            for module in self._layers:
                module.cache = None

    def select(self, rows: Tensor) -> None:
        """Keeps these rows alone, in this order: int64 `[rows]`."""
        for layer in self._layers.values():
            layer.select(rows)
