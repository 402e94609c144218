"""How many ids a model sees at once, where that is not the length of its training. Torch-free."""

from megatron_patches.errors import Refused
from megatron_patches.models.layers.position_config import LearnedPositionConfig
from megatron_patches.run.config import RunConfig


def with_window(config: RunConfig, length: int | None) -> RunConfig:
    """A run's configuration, for a model that sees `length` ids at once.

    A shorter window needs no other model: the configuration is the same then, and so where `length` is None.

    Raises:
        Refused: no position is known from where the training's samples end, or its objective has no such length.
    """
    trained = config.lengths.of("tokens")
    if length is None or length <= trained:
        return config
    if isinstance(getattr(config.model, "position_embedding", None), LearnedPositionConfig):
        raise Refused(learned_positions_end(length, trained))
    longer = config.model_copy(update={"data": config.data.model_copy(update={"sequence_length": length})})
    if longer.lengths.of("tokens") != length:
        raise Refused(f"length {length:,}: the objective of {config.name} has no samples of that length; leave it out")
    return longer


def learned_positions_end(length: int, trained: int) -> str:
    """What to say where a model has a vector for each position, and is asked for more of them."""
    return (
        f"length {length:,}: the model has learned its positions, and they end after {trained:,}; give {trained:,} or "
        "less, or leave it out"
    )
