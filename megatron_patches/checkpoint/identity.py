"""What must stay the same for a checkpoint to be continued. Torch-free."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from data_tools.data_config import DataConfig
from data_tools.samples.blend import PERIOD
from megatron_patches.configuration.section import Section
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import shortened
from megatron_patches.optim.optimizer_config import SGDConfig
from megatron_patches.run.config import RunConfig

OF_OPTIMIZER = ("name", "scale_by_parameter", "nesterov", "newton_schulz_steps", "update_scale")
"""what an update is; how strong its parts are (betas, decays, clips) may change in a resume"""
_SOURCES_TOLD = 12
OF_TRAINING = ("global_batch_size", "batch_ramp", "trainable", "frozen", "precision", "fp8", "seed")
_SOURCE = "source "
"""what keys of sources begin with (RunData.identity)"""
_RESERVED = "reserved"
"""in the identity of a text source (OpenedText.identity): how many documents are held out of it"""


def run_identity(config: RunConfig, datasets: Mapping[str, Any], tokenizer_id: str) -> dict[str, Any]:
    """The settings that decide the weights' shapes, the order of samples and the meaning of the optimizer's state.

    Layout, micro-batch, logging, lengths and the optimizer's numbers are not among them: a resume may change them.
    Learning rates are compared as such (resume_check.py). `datasets` is RunData.identity_for.
    """
    training = config.training.model_dump(include=set(OF_TRAINING))
    optimizer = config.optimizer.model_dump(include=set(OF_OPTIMIZER))
    if isinstance(config.optimizer, SGDConfig):
        optimizer["momentum"] = _velocity(config.optimizer.momentum)
    return {
        "name": config.name,
        **_prefixed("model", config.model.model_dump()),
        **_prefixed("objective", config.objective.model_dump()),
        **_prefixed("training", training),
        **_prefixed("optimizer", optimizer),
        "data.sequence_length": config.data.sequence_length,
        "data.split": config.data.split,
        "data.split_by": config.data.split_by,
        **_prefixed("data.samples", config.data.samples.model_dump()),
        **datasets,
        "tokenizer": tokenizer_id,
    }


def differences(
    saved: dict[str, Any], wanted: dict[str, Any], config: RunConfig, replaced: Collection[str] = ()
) -> list[str]:
    """One phrase for each setting that differs; one that did not exist when it was saved had its default then.

    Checkpoints of earlier versions have all of the optimizer's settings in their identity.

    Args:
        replaced: names of sources that may be others, since they had not been read (changed_data.py).
    """
    saved = _of_optimizer(_defaults_then(saved, config) | saved)
    return [
        _difference(key, saved.get(key), wanted.get(key))
        for key in sorted(saved.keys() | wanted.keys())
        if saved.get(key) != wanted.get(key)
        and key not in {f"{_SOURCE}{name}" for name in replaced}
        and not _is_told_elsewhere(key, saved, wanted)
    ]


def _difference(key: str, saved: Any, wanted: Any) -> str:
    before, now = _weights(saved), _weights(wanted)
    if key == "blend" and before and now:
        return (
            f"the weights of data.sources, in parts of {PERIOD:,}, are {before} in the checkpoint and {now} now, in "
            "this order (other weights from a later step on go into data.changes)"
        )
    if (reserved := _reserved(saved, wanted)) is not None:
        return (
            f"{key}: its first {reserved[0]:,} documents were held out for validation in the checkpoint and the first "
            f"{reserved[1]:,} are now, which would train on others (restore evaluation.samples, or evaluation; to "
            "validate on other text, name it in a group of data.validation from the start of a run)"
        )
    return f"{key} is {_shown(saved)} in the checkpoint and {_shown(wanted)} now"


def _reserved(saved: Any, wanted: Any) -> tuple[int, int] | None:
    """How many documents of raw text were and are held out, where that is what differs."""
    if not isinstance(saved, Mapping) or not isinstance(wanted, Mapping):
        return None
    before, now = (whole_of(each.get(_RESERVED)) for each in (saved, wanted))
    rest = [{key: value for key, value in each.items() if key != _RESERVED} for each in (saved, wanted)]
    return (before, now) if before is not None and now is not None and rest[0] == rest[1] else None


def _weights(blend: object) -> str:
    """Names and weights of `RunData.identity`; empty where it is nothing of the kind, as in what was damaged."""
    if not isinstance(blend, list) or not all(isinstance(each, list) and len(each) == 2 for each in blend):
        return ""
    told = [f"{_shown(name)} {_shown(weight)}" for name, weight in blend[:_SOURCES_TOLD]]
    return ", ".join(told) + (f" and {len(blend) - len(told)} more" if len(blend) > len(told) else "")


def _is_told_elsewhere(key: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """A source that is only read at one time (`blend` has those of the beginning, changed_data.py those of changes),
    and the keys of a section that is of another kind.
    """
    kind = f"{key.rpartition('.')[0]}.name"
    if key != kind and kind in saved and kind in wanted and saved[kind] != wanted[kind]:
        return True
    return key.startswith(_SOURCE) and (key not in saved or key not in wanted)


def _defaults_then(saved: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """What keys stood for before they existed. A checkpoint from before there were objectives has the usual one."""
    training = {key: value for key, value in _defaults(type(config.training)).items() if key in OF_TRAINING}
    optimizer = {key: value for key, value in _defaults(type(config.optimizer)).items() if key in OF_OPTIMIZER}
    usual = RunConfig.model_fields["objective"].default.model_dump()
    objective = _defaults(type(config.objective)) if "objective.name" in saved else usual
    return {
        **_prefixed("model", _defaults(type(config.model))),
        **_prefixed("objective", objective),
        **_prefixed("training", training),
        **_prefixed("optimizer", optimizer),
        "data.split_by": DataConfig.model_fields["split_by"].default,
        **_prefixed("data.samples", {**_defaults(type(config.data.samples)), "name": "stream"}),
    }


def _defaults(section: type[Section]) -> dict[str, Any]:
    fields = {key: field for key, field in section.model_fields.items() if not field.is_required()}
    plain = section.model_construct(**{key: field.default for key, field in fields.items()}).model_dump()
    return {key: plain[key] for key in fields}


def _prefixed(section: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in settings.items()}


def _of_optimizer(saved: dict[str, Any]) -> dict[str, Any]:
    """What is left of an earlier version's identity: of the optimizer what an update is."""
    kept = {*_prefixed("optimizer", dict.fromkeys(OF_OPTIMIZER))}
    found = {key: value for key, value in saved.items() if not key.startswith("optimizer.") or key in kept}
    if saved.get("optimizer.name") == "sgd":
        found["optimizer.momentum"] = _velocity(saved.get("optimizer.momentum", 0))
    return found


def _velocity(momentum: Any) -> Any:
    """SGD keeps a velocity or it does not; how fast that decays may change."""
    return "above 0" if momentum else 0


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:12]}..." if len(value) == 64 else value
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(each)}' for key, each in value.items())}}}"
    return shortened(json.dumps(value), 500)  # as a YAML would say it: true, null
