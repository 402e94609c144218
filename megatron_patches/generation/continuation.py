"""Texts that follow prompts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.generation.generator import Ending, Prompt
from megatron_patches.generation.loaded_model import LoadedModel
from megatron_patches.generation.sampling import Sampling
from megatron_patches.generation.written_text import WrittenText


@dataclass(frozen=True)
class Continuation:
    """A prompt and what a model wrote after it."""

    prompt: str
    """as its tokens are written"""
    text: str
    """what follows it"""
    tokens: int
    """of the text; those of a stop string count"""
    ending: Ending
    seed: int


@dataclass(frozen=True)
class Wanted:
    """What continuations are to be like.

    Prompt number n is drawn with `seed` + n, so that its text is that of the prompt alone under that seed.

    Raises:
        Refused: no token is wanted; or a stop string is empty, or no Unicode text.
    """

    tokens: int
    """at most"""
    sampling: Sampling
    seed: int = 0
    stops: Sequence[str] = ()
    """strings that end a text, and are no part of it"""
    ends: Collection[int] = ()
    """ids that do so beside the end of the document"""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise Refused(f"{self.tokens} tokens to add: give 1 or more")
        for stop in self.stops:
            if not stop:
                raise Refused("a stop string is empty, which every text holds; give one character or more")
            if not is_unicode(stop):
                raise Refused(f"the stop string '{shortened(stop)}' is not UTF-8 text, which no text holds; correct it")


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8; an argument of other bytes cannot."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Ids of a prompt; what spells a control token in it is text.

    Raises:
        TrainyardError: it is not Unicode text, or it is empty, and the tokenizer has no end-of-document token to begin
            after.
    """
    if not is_unicode(prompt):
        raise TrainyardError(f"the prompt '{shortened(prompt)}' is not UTF-8 text; convert it with iconv -t UTF-8")
    ids = tokenizer.encode(prompt)
    if not ids and tokenizer.end_of_document is None:
        raise TrainyardError(f"tokenizer {tokenizer.name} ends no document: give a prompt of a token or more")
    return ids


def continue_texts(
    model: LoadedModel, prompts: Sequence[str], wanted: Wanted, batch_size: int = 8
) -> Iterator[tuple[int, Continuation]]:
    """The continuation of each prompt, with its number: batch by batch, in which prompts are of similar length.

    An empty prompt stands for the beginning of a document.

    Raises:
        TrainyardError: as `prompt_ids`, before anything is written.
    """
    encoded = [prompt_ids(model.tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda number: -len(encoded[number]))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        written = _continue(model, [(number, encoded[number]) for number in batch], wanted)
        yield from zip(batch, written, strict=True)


def continue_text(
    model: LoadedModel, ids: Sequence[int], wanted: Wanted, hear: Callable[[WrittenText], bool]
) -> tuple[WrittenText, Ending]:
    """What follows one prompt; `hear` gets the text after each id, and says whether it goes on."""
    written = WrittenText(model.tokenizer, ids, wanted.stops)

    def take(_: int, chosen: int) -> bool:
        written.add(chosen)
        return hear(written) and not written.stopped

    prompt = Prompt(ids or [model.tokenizer.end_of_document or 0], wanted.seed)
    (ending,) = model.generator(wanted.ends).generate([prompt], wanted.tokens, wanted.sampling, take)
    return written, ending


def _continue(
    model: LoadedModel, prompts: Sequence[tuple[int, Sequence[int]]], wanted: Wanted
) -> Iterator[Continuation]:
    texts = [WrittenText(model.tokenizer, ids, wanted.stops) for _, ids in prompts]
    counts = [0] * len(prompts)

    def hear(row: int, chosen: int) -> bool:
        texts[row].add(chosen)
        counts[row] += 1
        return not texts[row].stopped

    begun = [Prompt(ids or [model.tokenizer.end_of_document or 0], wanted.seed + number) for number, ids in prompts]
    endings = model.generator(wanted.ends).generate(begun, wanted.tokens, wanted.sampling, hear)
    for (number, ids), text, count, ending in zip(prompts, texts, counts, endings, strict=True):
        yield Continuation(model.tokenizer.decode(ids), text.text, count, ending, wanted.seed + number)
