"""An encoder without its head: texts to features, in fp32, on one process. Of any layout's checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from data_tools.text.special_tokens import SpecialTokens, special_tokens_of
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, TOKENS, ModelInputs
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer, own_tokenizer_files
from megatron_patches.evaluation.tasks.fine_tuning import Pooling
from megatron_patches.generation.evaluated_run import at_length, laid_out, taken_rows
from megatron_patches.generation.loading import described, load_weights
from megatron_patches.models.blueprint import Blueprint, draw_up
from megatron_patches.models.build import PlainModel
from megatron_patches.models.interface.layer_spec import HIDDEN
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.run.config import RunConfig

_PACKED = ModelInputs((TOKENS, POSITIONS, DOCUMENTS), "documents", within_documents=True)
"""texts one after the other, none of which sees another: nothing fills up a shorter one"""


@dataclass(frozen=True)
class Trunk:
    """The layers in front of the head."""

    model: PlainModel
    config: RunConfig
    """at the length that was asked for"""
    tokenizer: Tokenizer
    special: SpecialTokens
    device: torch.device
    start_step: Callable[[int], None]
    """seeds dropout for a step"""

    @property
    def window(self) -> int:
        """Most ids of a text."""
        return self.config.lengths.of("tokens")

    def features(self, texts: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """What stands for each text, fp32 `[texts, hidden]`.

        Args:
            texts: ids, one or more of each, and no more than the window.
        """
        lengths = [len(text) for text in texts]
        sizes = torch.tensor(lengths, device=self.device)
        firsts = sizes.cumsum(0) - sizes
        starts = firsts.repeat_interleave(sizes)
        tokens = torch.tensor([id for text in texts for id in text], device=self.device)
        inputs = {
            TOKENS.name: tokens[None],
            POSITIONS.name: (torch.arange(len(tokens), device=self.device) - starts)[None],
            DOCUMENTS.name: starts[None],
        }
        hidden = self.model.behind(inputs)
        assert isinstance(hidden, Tensor), "after the last block there is more than the residual stream"
        if pooling == "cls":
            return hidden[firsts, 0]
        return torch.stack([part.mean(0) for part in hidden[:, 0].split(lengths)])


def load_trunk(folder: Path, length: int | None, groups: ProcessGroups) -> Trunk:
    """A checkpoint's encoder, whatever layout saved it; its stored weights are read into fp32.

    Args:
        length: most ids of a text; None means those of a sample in training.
        groups: of one process.

    Raises:
        DamagedCheckpoint: a file is not as it was written.
        TrainyardError: its tokenizer is not to be found, or its positions end before this length.
    """
    manifest, trained = described(folder)
    config = laid_out(at_length(trained, length), 1, 1)
    groups = replace(groups, dtype=torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    model = PlainModel(_without_head(draw_up(config.model, config.lengths, _PACKED, groups, randomness, seed=None)))
    load_weights(model, folder, manifest, taken_rows(trained, config))
    tokenizer, special = _tokenizer(folder, manifest, trained)
    return Trunk(model.to(groups.device).eval(), config, tokenizer, special, groups.device, randomness.start_step)


def _without_head(blueprint: Blueprint) -> Blueprint:
    """The part that ends with the last layer that writes the residual stream."""
    last = max(number for number, call in enumerate(blueprint.calls) if call.spec.writes == HIDDEN)
    return replace(blueprint, calls=blueprint.calls[: last + 1])


def _tokenizer(folder: Path, manifest: Manifest, config: RunConfig) -> tuple[Tokenizer, SpecialTokens]:
    tokenizer = own_tokenizer(folder, manifest, config)
    return tokenizer, special_tokens_of(tokenizer, own_tokenizer_files(folder, manifest))
