"""Which format of transformers holds a run's model, and what holds a `config.json`'s."""

import textwrap
from collections.abc import Sequence

from megatron_patches.configuration.fields import kind_name
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import shortened
from megatron_patches.models.interface.transformers_format import Obstacle, TransformersFormat
from megatron_patches.models.registry import all_architectures
from megatron_patches.run.config import RunConfig

_WIDTH = 78
"""columns of a message's lines: a terminal has 80"""


def choose_format(config: RunConfig, wanted: str | None = None) -> TransformersFormat:
    """The first format of the model's architecture that can express it.

    Args:
        wanted: the `model_type` that it must be; None for any.

    Raises:
        Refused: there is none; the message names, for each, the keys in the way.
    """
    formats = config.architecture.transformers_formats()
    if not formats:
        raise Refused(
            f"model.name {kind_name(type(config.model))}: transformers has no architecture that computes what it does"
        )
    asked = [_named(wanted, formats)] if wanted is not None else formats
    _refuse_other_attention(config, asked[0])
    in_the_way = {each: each.obstacles(config.model) for each in asked}
    for each, obstacles in in_the_way.items():
        if not obstacles:
            return each
    raise Refused(_refusal(config, in_the_way))


def format_of(model_type: str) -> tuple[str, TransformersFormat]:
    """The architecture's name (`model.name`) and the format of a `config.json`'s `model_type`.

    Raises:
        Refused: no architecture has such a format.
    """
    known = {
        each.model_type: (kind_name(architecture.config), each)
        for architecture in all_architectures()
        for each in architecture.transformers_formats()
    }
    if model_type not in known:
        raise Refused(
            f"model_type {shortened(model_type, 60)} is of no architecture here; what can be imported is "
            f"{', '.join(known)}"
        )
    return known[model_type]


def _refuse_other_attention(config: RunConfig, format: TransformersFormat) -> None:
    """A model that reads prefixes whole would be another one in transformers, which reads causally; and one whose
    tokens see those before them alone would be another one where transformers reads whole texts."""
    prompt, told = config.objective.prompt_inputs, config.objective.describe()
    if format.task == "fill-mask" and config.objective.text_inputs is None:
        raise Refused(
            f"objective {told}: {format.class_name} fills in masked tokens, and this run was not trained to; its "
            "objective would be masked_lm"
        )
    if format.task == "text-generation" and (prompt is None or prompt.attention != "causal"):
        raise Refused(
            f"objective {told}: tokens of this run see later ones, and architectures of transformers that continue "
            "text see earlier ones alone"
        )


def _named(wanted: str, formats: Sequence[TransformersFormat]) -> TransformersFormat:
    for each in formats:
        if each.model_type == wanted:
            return each
    names = ", ".join(each.model_type for each in formats)
    raise Refused(f"format {shortened(wanted, 60)}: this run's architecture can become {names}")


def _refusal(config: RunConfig, in_the_way: dict[TransformersFormat, list[Obstacle]]) -> str:
    """What each format takes in place of the run's settings, the nearest format first."""
    ordered = sorted(in_the_way.items(), key=lambda item: len(item[1]))
    lines = [f"no architecture of transformers asked for can express the model of {config.name}; in the way stand"]
    for each, obstacles in ordered:
        lines.append(f"{each.model_type}:")
        for obstacle in obstacles:
            text = f"model.{obstacle.setting} {obstacle.value}: it takes {obstacle.takes}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*textwrap.wrap(lines[0], _WIDTH), *lines[1:]])
