"""Continuations from a run's checkpoint: one process, whatever layout saved it, weights only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.batch.fields import VISIBLE, ModelInputs
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.load import DamagedCheckpoint, load_alone
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.generation.sampling import Sampling, choose
from megatron_patches.models.blueprint import draw_up
from megatron_patches.models.build import PlainModel, canonical_parameters
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import ProcessGroups, start_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import info_of
from megatron_patches.parameters.torch_dtypes import PRECISIONS
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved


@dataclass(frozen=True)
class LoadedModel:
    """A model and the tokenizer it was trained with."""

    checkpoint: Path
    config: RunConfig
    model: PlainModel
    inputs: ModelInputs
    """what it reads of a prompt"""
    tokenizer: Tokenizer
    device: torch.device

    @torch.no_grad()
    def logits(self, ids: Sequence[int], prefix: int = 0) -> Tensor:
        """Logits of the token after each of these, fp32 `[len(ids), vocabulary]`; no more ids than a sample has places.

        The first `prefix` of them see each other whole, where the model was trained to read prefixes so.
        """
        inputs = {"tokens": torch.tensor([list(ids)], dtype=torch.int64, device=self.device)}
        if self.inputs.has(VISIBLE):
            ends = torch.arange(1, len(ids) + 1, device=self.device).clamp(min=prefix)
            inputs["visible"] = torch.stack((torch.zeros_like(ends), ends), dim=-1)[None]
        return self.model(inputs)[:, 0].float()

    def continue_ids(self, ids: Sequence[int], tokens: int, sampling: Sampling) -> Iterator[int]:
        """Up to `tokens` further ids, one at a time; it ends where the model ends the document.

        The model sees the last `data.sequence_length` ids; `ids` are the prefix of a model that reads one. The same
        checkpoint, prompt and sampling give the same ids.
        """
        generator = torch.Generator().manual_seed(sampling.seed)
        context = list(ids)
        for _ in range(tokens):
            seen = context[-self.config.lengths.of("tokens") :]
            logits = self.logits(seen, prefix=max(0, len(ids) - len(context) + len(seen)))[-1]
            # rows beyond the tokenizer's ids only pad the embedding: they stand for no text
            chosen = choose(logits[: self.tokenizer.vocab_size].cpu(), sampling, generator)
            if chosen == self.tokenizer.end_of_document:
                return
            context.append(chosen)
            yield chosen

    def continue_text(self, prompt: str, tokens: int, sampling: Sampling) -> str:
        """The prompt and its continuation. An empty prompt stands for the beginning of a document.

        What spells a control token in the prompt is text.

        Raises:
            TrainyardError: the prompt is not Unicode text, or it is empty, and the tokenizer has no end-of-document
                token to begin after.
        """
        if not prompt.isascii() and any("\ud800" <= each <= "\udfff" for each in prompt):
            raise TrainyardError(f"the prompt '{shortened(prompt)}' is not UTF-8 text; convert it with iconv -t UTF-8")
        ids = self.tokenizer.encode(prompt)
        if not ids and self.tokenizer.end_of_document is None:
            raise TrainyardError(f"tokenizer {self.tokenizer.name} ends no document: give a prompt of a token or more")
        start = ids or [self.tokenizer.end_of_document or 0]
        return self.tokenizer.decode([*ids, *self.continue_ids(start, tokens, sampling)])


def load_model(folders: Sequence[Path], passed_over: Callable[[str], None]) -> LoadedModel:
    """The model of the first of these checkpoints that is whole. Starts this process's groups: once a process.

    `passed_over` hears what is wrong with those before it.

    Raises:
        TrainyardError: all of them are damaged; or its tokenizer is missing or another one.
    """
    problems: list[str] = []
    groups: ProcessGroups | None = None
    for folder in folders:
        try:
            inspection = inspect(folder)
            if inspection.manifest is None or inspection.problems:
                raise DamagedCheckpoint("; ".join(inspection.problems))
            config = load_resolved(folder / CONFIG)
            tokenizer = _own_tokenizer(folder, inspection.manifest, config)
            precision = PRECISIONS[config.training.precision]
            groups = groups or start_process_groups(Layout(1, 1, 1), precision, alone=True)
            inputs = _prompt_inputs(config)
            model = load_weights(folder, inspection.manifest, config, inputs, replace(groups, dtype=precision))
            return LoadedModel(folder, config, model, inputs, tokenizer, groups.device)
        except DamagedCheckpoint as error:
            problems.append(str(error))
            passed_over(str(error))
    raise TrainyardError(
        f"no whole checkpoint to read: {'; '.join(problems)}. Restore one from a copy, or name another"
    )


def _prompt_inputs(config: RunConfig) -> ModelInputs:
    inputs = config.objective.prompt_inputs
    if inputs is None:
        raise TrainyardError(f"{config.name} was not trained to continue text ({config.objective.describe()})")
    return inputs


def load_weights(
    folder: Path, manifest: Manifest, config: RunConfig, inputs: ModelInputs, groups: ProcessGroups
) -> PlainModel:
    """A checkpoint's model for evaluation, of its weights alone, in the type and on the device of `groups`.

    Args:
        inputs: what the model is given to read; it need not be what it was trained with.
        groups: of one process, or of as many tensor-parallel ones: each reads its own slices, whatever layout saved
            the checkpoint.

    Raises:
        DamagedCheckpoint: a file is not as it was written.
        Refused: the checkpoint is another model's.
    """
    randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
    model = PlainModel(draw_up(config.model, config.lengths, inputs, groups, randomness, config.training.seed))
    pieces = [
        StatePiece(name, "weight", info_of(parameter).slice, 0, parameter.detach().view(-1), written_here=False)
        for name, parameter in canonical_parameters(model).items()
    ]
    load_alone(folder, manifest, pieces)
    return model.to(groups.device).eval()


def _own_tokenizer(folder: Path, manifest: Manifest, config: RunConfig) -> Tokenizer:
    tokenizer = load_tokenizer(CHECKOUT / config.data.tokenizer)
    identity = manifest.facts["identity"]
    assert isinstance(identity, dict)
    if tokenizer.id != identity["tokenizer"]:
        raise TrainyardError(
            f"{folder} was trained with tokenizer {str(identity['tokenizer'])[:12]}, {config.data.tokenizer} is now "
            f"{tokenizer.id[:12]}; restore the run's own tokenizer there"
        )
    return tokenizer
