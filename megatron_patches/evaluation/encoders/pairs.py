"""Sentences and pairs as token ids: [CLS] a [SEP], [CLS] a [SEP] b [SEP]. Torch-free."""

from collections.abc import Sequence

from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import Refused
from megatron_patches.evaluation.encoders.text_ends import TextEnds


def encode_pairs(rows: Sequence[tuple[str, ...]], tokenizer: Tokenizer, ends: TextEnds, window: int) -> list[list[int]]:
    """Ids of each row, at most `window`: tokens are taken from the end of the longer text, until the rest fits.

    Raises:
        Refused: not even one token of each text fits.
    """
    if not rows:
        return []
    texts = len(rows[0])
    room = window - len(ends.before) - texts * len(ends.after)
    if room < texts:
        raise Refused(f"a length of {window} has no room for {texts} texts and what parts them; give a longer --length")
    encoded = [tokenizer.encode_batch([row[number] for row in rows]) for number in range(texts)]
    return [_joined(shortened_to(room, list(parts)), ends) for parts in zip(*encoded, strict=True)]


def shortened_to(room: int, parts: list[list[int]]) -> list[list[int]]:
    """The beginnings of one or two texts, no more than `room` ids together; of two the longer one gives up its last
    ids first, of equal ones the second."""
    if len(parts) == 1:
        return [parts[0][:room]]
    first, second = (len(part) for part in parts)
    half = room // 2
    if first + second <= room:
        return parts
    if second <= half:
        first = room - second
    elif first <= room - half:
        second = room - first
    else:
        first, second = room - half, half
    return [parts[0][:first], parts[1][:second]]


def _joined(parts: Sequence[list[int]], ends: TextEnds) -> list[int]:
    joined = list(ends.before)
    for part in parts:
        joined += [*part, *ends.after]
    return joined
