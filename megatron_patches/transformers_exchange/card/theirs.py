"""A folder's model as plain transformers has it, in fp32: all of it, or one module's weights at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from megatron_patches.errors import TrainyardError, listed
from megatron_patches.foreign.printable import shortened
from megatron_patches.models.interface.transformers_format import Task, TransformersFormat
from megatron_patches.transformers_exchange.card.card import NotEqual
from megatron_patches.transformers_exchange.card.folder import StoredTensor, TransformersFolder

CHECK = "loading"


class TheirModel:
    """Logits and greedy tokens of a folder's model."""

    def __init__(self, model: Any, task: Task, device: torch.device) -> None:
        self._model, self._task, self.device = model, task, device

    @torch.no_grad()
    def logits(self, ids: Tensor, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """fp32 `[samples, places, vocabulary]` of ids `[samples, positions]`, for each part of the places (int64
        `[places]`); only one part is in memory."""
        given, base = ids.to(self.device), self._model.base_model
        before = base(input_ids=given, **({"use_cache": False} if self._task == "text-generation" else {}))
        try:
            for places in parts:
                # the whole model's own forward makes logits of it, part by part
                kept = type(before)(last_hidden_state=before.last_hidden_state[:, places.to(self.device)])
                base.forward = lambda *args, kept=kept, **options: kept
                yield self._model(input_ids=given).logits.float()
        finally:
            del base.forward

    @torch.no_grad()
    def masked_logits(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """fp32 `[samples, positions, vocabulary]` of ids `[samples, positions]`, all at once, with an attention mask of
        the same shape."""
        given = None if mask is None else mask.to(self.device)
        logits: Tensor = self._model(input_ids=ids.to(self.device), attention_mask=given).logits
        return logits.float()

    @torch.no_grad()
    def continued(self, prompt: Tensor, tokens: int) -> Tensor:
        """The prompt `[1, length]` and as many greedy tokens, by `generate` with its caches; no token ends it early."""
        from transformers import GenerationConfig

        ids = prompt.to(self.device)
        self._model.generation_config = GenerationConfig()  # the folder's own may sample, and says what ends a text
        found: Tensor = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
        )
        return found.cpu()


@contextmanager
def their_model(folder: TransformersFolder, format: TransformersFormat, by_block: bool) -> Iterator[TheirModel]:
    """The model that `AutoModelForCausalLM.from_pretrained(folder)` gives, or `AutoModelForMaskedLM` of one that fills
    in masked tokens, without code of the folder's own.

    Raises:
        NotEqual: transformers makes another class of it, a parameter is not in the folder, or would be in it twice, or
            a tensor is no parameter.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _quiet():
        try:
            empty = _empty_model(folder, format)
            names = _stored_names(empty, folder, format)
            model = _in_turn(empty, folder, names, device) if by_block else _whole(folder, format)
        except TrainyardError:
            raise
        except Exception as error:  # of settings or weights that it does not take: assertions, and types of its own
            raise NotEqual(CHECK, f"transformers does not take the folder: {shortened(error, 400)}") from error
        yield TheirModel(model.to(device).eval(), format.task, device)


def _whole(folder: TransformersFolder, format: TransformersFormat) -> Any:
    model, info = _automatic(format).from_pretrained(
        folder.path, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
        output_loading_info=True,
    )  # fmt: skip
    # buffers of old versions that this one does not know; whatever else is left over was refused before
    info["unexpected_keys"] = {key for key in info["unexpected_keys"] if not format.ignored(format.current_name(key))}
    if problems := [f"{kind.replace('_', ' ')}: {shortened(found)}" for kind, found in info.items() if found]:
        raise NotEqual(CHECK, f"transformers says of the folder\n{listed(problems)}")
    return model


def _automatic(format: TransformersFormat) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    return AutoModelForMaskedLM if format.task == "fill-mask" else AutoModelForCausalLM


def _empty_model(folder: TransformersFolder, format: TransformersFormat) -> Any:
    """The model whose parameters are all on the meta device; its buffers are real, since no file holds them."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
    hook = register_module_parameter_registration_hook(_on_meta)  # type: ignore[arg-type]
    try:
        return _automatic(format).from_config(config, dtype=torch.float32, trust_remote_code=False)
    finally:
        hook.remove()


def _on_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
    """A parameter of the same shape without memory: what such a hook returns takes the parameter's place."""
    if parameter is None or parameter.is_meta:
        return parameter
    return nn.Parameter(parameter.to("meta"), requires_grad=False)


def _stored_names(model: Any, folder: TransformersFolder, format: TransformersFormat) -> dict[int, str]:
    """For each parameter, by its identity, the tensor that holds it; a tied one has one tensor, whatever its name.

    `from_pretrained` itself draws what is missing and leaves untied what is stored twice, with a warning each.
    """
    if type(model).__name__ != format.class_name:
        raise NotEqual(CHECK, f"transformers makes a {type(model).__name__} of the folder, not a {format.class_name}")
    named = list(model.named_parameters(remove_duplicate=False))
    aliases: dict[int, list[str]] = defaultdict(list)
    for name, parameter in named:
        aliases[id(parameter)].append(name)
    found = {key: [name for name in names if name in folder.tensors] for key, names in aliases.items()}
    known = {name for name, _ in named}
    problems = [
        *(f"{aliases[key][0]} is not in it: transformers would draw it" for key, names in found.items() if not names),
        *(f"{' and '.join(names)} are one parameter, and stored twice" for names in found.values() if len(names) > 1),
        *(f"{each.told} is no parameter of {format.class_name}" for name, each in folder.tensors.items()
          if name not in known and not format.ignored(name)),
        *(f"{name} is of shape {folder.tensors[name].shape}, and {tuple(parameter.shape)} by config.json"
          for name, parameter in named
          if name in folder.tensors and folder.tensors[name].shape != tuple(parameter.shape)),
    ]  # fmt: skip
    if problems:
        raise NotEqual(CHECK, f"of the folder\n{listed(problems)}")
    return {key: names[0] for key, names in found.items()}


def _in_turn(model: Any, folder: TransformersFolder, names: Mapping[int, str], device: torch.device) -> Any:
    """The same model, whose modules have their own weights only while they run."""
    held = [
        (module, {name: folder.tensors[names[id(each)]] for name, each in module.named_parameters(recurse=False)})
        for module in model.modules()
    ]
    for module, stored in held:
        if stored:
            _free(module, stored, device)
            module.register_forward_pre_hook(lambda here, inputs, stored=stored: _load(here, stored, device))
            module.register_forward_hook(lambda here, inputs, output, stored=stored: _free(here, stored, device))
    return model


def _load(module: nn.Module, stored: Mapping[str, StoredTensor], device: torch.device) -> None:
    for name, tensor in stored.items():
        values = tensor.read().to(device, torch.float32)
        setattr(module, name, nn.Parameter(values, requires_grad=False))


def _free(module: nn.Module, stored: Mapping[str, StoredTensor], device: torch.device) -> None:
    for name in stored:
        setattr(module, name, nn.Parameter(torch.empty(0, device=device), requires_grad=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice of transformers on the terminal: what it says of a folder is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
