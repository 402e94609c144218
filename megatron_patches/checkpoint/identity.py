"""What must stay the same for a checkpoint to be continued. Torch-free."""

from typing import Any

from data_tools.section import Section
from megatron_patches.config import RunConfig


def run_identity(config: RunConfig, dataset_id: str, tokenizer_id: str) -> dict[str, Any]:
    """The settings that decide the weights' shapes, the order of samples and the meaning of the optimizer's state.

    Layout, micro-batch, logging and lengths are not among them: a resume may change them. Learning rates are compared
    as such (resume_check.py).
    """
    optimizer = config.optimizer.model_dump(exclude={"learning_rate"})
    model = {f"model.{key}": value for key, value in config.model.model_dump().items()}
    return {
        "name": config.name,
        **model,
        "data.sequence_length": config.data.sequence_length,
        "data.split": config.data.split,
        "dataset": dataset_id,
        "tokenizer": tokenizer_id,
        "training.global_batch_size": config.training.global_batch_size,
        "training.precision": config.training.precision,
        "training.seed": config.training.seed,
        **{f"optimizer.{key}": value for key, value in optimizer.items()},
    }


def differences(saved: dict[str, Any], wanted: dict[str, Any], config: RunConfig) -> list[str]:
    """One phrase for each setting that differs; one that did not exist when it was saved had its default then."""
    saved = _defaults(type(config.model), "model") | _defaults(type(config.optimizer), "optimizer") | saved
    return [
        f"{key} is {_shown(saved.get(key))} in the checkpoint and {_shown(wanted.get(key))} now"
        for key in sorted(saved.keys() | wanted.keys())
        if saved.get(key) != wanted.get(key)
    ]


def _defaults(section: type[Section], prefix: str) -> dict[str, Any]:
    fields = {key: field for key, field in section.model_fields.items() if not field.is_required()}
    plain = section.model_construct(**{key: field.default for key, field in fields.items()}).model_dump()
    return {f"{prefix}.{key}": plain[key] for key in fields}


def _shown(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)
