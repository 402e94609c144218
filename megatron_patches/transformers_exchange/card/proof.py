"""Proves that a checkpoint and a folder of transformers are the same model: tensors, logits, greedy tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor

from megatron_patches.artefacts.provenance import known_revision, versions
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Refused
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.card import (
    GREEDY_TOKENS,
    NEAR_TIE,
    Card,
    GreedyFigures,
    LogitFigures,
    NotEqual,
)
from megatron_patches.transformers_exchange.card.folder import TransformersFolder, open_folder, with_current_names
from megatron_patches.transformers_exchange.card.logits import KeptLogits, distance_of_first_two
from megatron_patches.transformers_exchange.card.ours import OurModel, our_model
from megatron_patches.transformers_exchange.card.source import Source
from megatron_patches.transformers_exchange.card.tensors import compare_tensors
from megatron_patches.transformers_exchange.card.text import CardText
from megatron_patches.transformers_exchange.card.theirs import their_model

_PROMPT = 32
"""tokens that the greedy continuation begins with, at most"""


def prove(
    source: Source,
    folder: Path,
    format: TransformersFormat,
    config: RunConfig,
    text: CardText,
    by_block: bool,
    command: str,
) -> Card:
    """The card, for an export (from checkpoint to folder) and for an import (from folder to a new checkpoint).

    One model is in memory at a time, in fp32; with `by_block` one layer of it. This process must not have joined
    process groups: it starts those of a single process, and leaves them at the end.

    Args:
        command: as a person would write it to make the folder.

    Raises:
        NotEqual: they are not, or a number is NaN or infinite.
        Damaged: the folder is not whole (`open_folder`).
        Refused: the objective writes no text, so that no causal model is what was trained.
    """
    if config.objective.prompt_inputs is None:
        raise Refused(f"{config.name} was not trained to continue text ({config.objective.describe()})")
    opened = with_current_names(open_folder(folder), format)
    tensors = compare_tensors(source, opened, format, config)
    logits, greedy = _compare_models(source, opened, format, config, text, by_block)
    return Card(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=known_revision(CHECKOUT).text,
        versions=versions() | {each: metadata.version(each) for each in ("torch", "transformers")},
        source=source.id,
        model_type=format.model_type,
        class_name=format.class_name,
        text=text.described,
        text_sha256=text.sha256,
        by_block=by_block,
        tensors=tensors,
        logits=logits,
        greedy=greedy,
    )


def _compare_models(
    source: Source,
    folder: TransformersFolder,
    format: TransformersFormat,
    config: RunConfig,
    text: CardText,
    by_block: bool,
) -> tuple[LogitFigures, GreedyFigures]:
    """Theirs comes first: ours then says of their greedy tokens, all at once, whether each is its likeliest too."""
    ids = torch.from_numpy(text.ids)
    tokens = min(GREEDY_TOKENS, config.lengths.of("tokens") - 1)
    prompt = ids[:1, : min(_PROMPT, config.lengths.of("tokens") - tokens)]
    # beside the folder: a disk with room, which the place of temporary files need not be; without a name, and so gone
    # with this process
    with TemporaryFile(dir=folder.path.parent) as file:
        kept = KeptLogits(file)
        with their_model(folder, format, by_block) as theirs:
            kept.keep(theirs.logits(ids), config.model.vocabulary)
            continued = theirs.continued(prompt, tokens)
            del theirs
        with our_model(source, config, by_block) as ours:
            figures = kept.compare(ours.logits(ids))
            return figures, _compare_greedy(ours, continued, prompt.shape[1])


def _compare_greedy(ours: OurModel, continued: Tensor, prompt: int) -> GreedyFigures:
    """Whether a greedy continuation is ours too. By induction it is, where each of its tokens is the likeliest after
    those before it, so one pass over all of it tells."""
    logits = ours.logits(continued[:, :-1])[0, prompt - 1 :].cpu()
    generated = continued[0, prompt:]
    other = (logits.argmax(-1) != generated).nonzero()
    if len(other) == 0:
        return GreedyFigures(prompt=prompt, tokens=len(generated), equal=len(generated), near_tie=None)
    at = int(other[0])
    distance = float(distance_of_first_two(logits[at]))
    if distance > NEAR_TIE:
        raise NotEqual(
            "greedy",
            f"token {at + 1} of {len(generated)} is {int(logits[at].argmax())} by the checkpoint and "
            f"{int(generated[at])} by the folder, and the checkpoint's first two logits are {distance:.3g} apart "
            f"(a near tie is {NEAR_TIE:g})",
        )
    return GreedyFigures(prompt=prompt, tokens=len(generated), equal=at, near_tie=distance)
