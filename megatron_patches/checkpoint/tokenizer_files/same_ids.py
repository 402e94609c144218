"""Whether token ids of one tokenizer mean the same in another."""

from data_tools.encoding.hard_texts import HARD_TEXTS
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable, shortened

_TOLD = 3


def ids_that_are_new(before: Tokenizer, now: Tokenizer) -> tuple[int, ...]:
    """Ids that stand for nothing in the first tokenizer, and are tokens of the second, below the first one's last id.

    Raises:
        Refused: an id of the first stands for another token in the second, or for none.
    """
    were, are = before.tokens(), now.tokens()
    others = [number for number, token in sorted(were.items()) if are.get(number) != token]
    if others:
        told = "; ".join(
            f"{number} is '{shortened(were[number], 40)}' there and "
            + (f"'{shortened(are[number], 40)}' here" if number in are else "no token here")
            for number in others[:_TOLD]
        )
        raise Refused(
            f"tokenizer {printable(now.name)} does not extend {printable(before.name)}, with which it was trained: "
            f"{len(others):,} of {len(were):,} ids mean something else ({told}). Train with that tokenizer, or with "
            "one that only adds tokens behind its last id"
        )
    return tuple(sorted(number for number in are.keys() - were.keys() if number < before.vocab_size))


def refuse_other_ids(before: Tokenizer, now: Tokenizer) -> None:
    """Compare how two tokenizers of the same tokens cut texts: rules of cutting are no part of a vocabulary.

    Raises:
        Refused: a text that is hard to cut becomes other ids.
    """
    for text in HARD_TEXTS:
        if before.encode(text) != now.encode(text):
            raise Refused(
                f"tokenizer {printable(now.name)} has the tokens of {printable(before.name)} and cuts texts "
                f"otherwise: {shortened(ascii(text), 60)} becomes other ids. Train with that tokenizer"
            )
