"""What must stay the same for a checkpoint to be continued. Torch-free."""

import json
from typing import Any

from megatron_patches.configuration.section import Section
from megatron_patches.run.config import RunConfig

OF_TRAINING = ("global_batch_size", "batch_ramp", "trainable", "frozen", "precision", "fp8", "seed")


def run_identity(config: RunConfig, dataset_id: str, tokenizer_id: str) -> dict[str, Any]:
    """The settings that decide the weights' shapes, the order of samples and the meaning of the optimizer's state.

    Layout, micro-batch, logging and lengths are not among them: a resume may change them. Learning rates are compared
    as such (resume_check.py).
    """
    training = config.training.model_dump(include=set(OF_TRAINING))
    optimizer = config.optimizer.model_dump(exclude={"learning_rate"})
    optimizer["weight_decay_by_name"] = _in_order(optimizer["weight_decay_by_name"])
    return {
        "name": config.name,
        **_prefixed("model", config.model.model_dump()),
        **_prefixed("objective", config.objective.model_dump()),
        **_prefixed("training", training),
        **_prefixed("optimizer", optimizer),
        "data.sequence_length": config.data.sequence_length,
        "data.split": config.data.split,
        "dataset": dataset_id,
        "tokenizer": tokenizer_id,
    }


def differences(saved: dict[str, Any], wanted: dict[str, Any], config: RunConfig) -> list[str]:
    """One phrase for each setting that differs; one that did not exist when it was saved had its default then."""
    saved = _defaults_then(saved, config) | saved
    return [
        f"{key} is {_shown(saved.get(key))} in the checkpoint and {_shown(wanted.get(key))} now"
        for key in sorted(saved.keys() | wanted.keys())
        if saved.get(key) != wanted.get(key)
    ]


def _defaults_then(saved: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """What keys stood for before they existed. A checkpoint from before there were objectives has the usual one."""
    training = {key: value for key, value in _defaults(type(config.training)).items() if key in OF_TRAINING}
    optimizer = _defaults(type(config.optimizer))
    optimizer["weight_decay_by_name"] = _in_order(optimizer["weight_decay_by_name"])
    usual = RunConfig.model_fields["objective"].default.model_dump()
    objective = _defaults(type(config.objective)) if "objective.name" in saved else usual
    return {
        **_prefixed("model", _defaults(type(config.model))),
        **_prefixed("objective", objective),
        **_prefixed("training", training),
        **_prefixed("optimizer", optimizer),
    }


def _defaults(section: type[Section]) -> dict[str, Any]:
    fields = {key: field for key, field in section.model_fields.items() if not field.is_required()}
    plain = section.model_construct(**{key: field.default for key, field in fields.items()}).model_dump()
    return {key: plain[key] for key in fields}


def _prefixed(section: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in settings.items()}


def _in_order(decays: dict[str, float]) -> list[list[Any]]:
    """Of patterns the last one that fits counts, and JSON's objects have no order."""
    return [list(each) for each in decays.items()]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:12]}..." if len(value) == 64 else value
    return json.dumps(value)  # as a YAML would say it: true, null
