"""What a text begins and ends with, as an encoder was trained to read it. Torch-free."""

from dataclasses import dataclass

from data_tools.text.special_tokens import SpecialTokens
from data_tools.wrapped_texts import is_wrapped
from megatron_patches.errors import Refused
from megatron_patches.run.config import RunConfig


@dataclass(frozen=True)
class TextEnds:
    """Ids around a text; empty where there are none."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Places that they take."""
        return len(self.before) + len(self.after)

    def around(self, ids: list[int]) -> list[int]:
        """The whole."""
        return [*self.before, *ids, *self.after]


def ends_in_training(config: RunConfig, special: SpecialTokens) -> TextEnds:
    """The cls and the sep token, where the run's samples have them around each text (`data.samples.wrapped`).

    Raises:
        Refused: the tokenizer has no such tokens.
    """
    if not is_wrapped(config.data):
        return TextEnds()
    if special.cls is None or special.sep is None:
        raise Refused(
            f"data.samples.wrapped of {config.name} needs a cls and a sep token, and its tokenizer has none; restore "
            "the tokenizer that it was trained with"
        )
    return TextEnds((special.cls,), (special.sep,))


def ends_of_pairs(special: SpecialTokens, end_of_document: int | None) -> TextEnds:
    """What a sentence or pair to be labelled is read with: [CLS] a [SEP] b [SEP], whatever the run's samples have.

    Where the tokenizer has no sep token, the one that ends documents stands in its place; where it has no cls token,
    nothing does.

    Raises:
        Refused: the tokenizer has neither of both that part texts.
    """
    sep = end_of_document if special.sep is None else special.sep
    if sep is None:
        raise Refused(
            "the tokenizer has no sep token and none that ends documents, so that two sentences cannot be told apart; "
            "train an encoder with a tokenizer that has one (tools/tokenizer train)"
        )
    return TextEnds(() if special.cls is None else (special.cls,), (sep,))
