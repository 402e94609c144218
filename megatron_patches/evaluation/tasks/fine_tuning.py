"""How a copy of an encoder is fine-tuned on a task: all settings are part of the task's definition. Torch-free."""

from dataclasses import asdict, dataclass
from typing import Literal, Self

from megatron_patches.errors import Refused

Pooling = Literal["cls", "mean"]
"""what stands for a text: the encoder's output at its first token, cls; or the mean over all of its tokens"""
WARMUP, WEIGHT_DECAY, GRADIENT_CLIP, DROPOUT = 0.1, 0.01, 1.0, 0.1
"""of BERT (Devlin et al. 2019, appendix A): share of the steps in which the learning rate rises, AdamW's decay of
matrices, the largest norm of a gradient, and the share of the pooled features that is dropped in front of the head,
unless that learns alone"""


@dataclass(frozen=True)
class FineTuning:
    """Settings; BERT's for its own fine-tuning where none are given."""

    frozen: bool = False
    """whether the head alone learns, on features that the encoder computes once (a linear probe)"""
    epochs: int = 3
    learning_rate: float = 3e-5
    """the largest; it rises over the first tenth of the steps and falls to 0 in a straight line"""
    train_batch: int = 32
    """texts or pairs of a step"""
    pooling: Pooling = "cls"
    seeds: int = 1
    """times that it is done, from seeds 0, 1, ...; the numbers are means"""

    @classmethod
    def given(cls, frozen: bool, **settings: float | str | None) -> Self:
        """With those that are not None; a linear probe has defaults of its own.

        Raises:
            Refused: a number is out of its range.
        """
        own = {"epochs": 20, "learning_rate": 1e-2} if frozen else {}
        chosen = {name: value for name, value in settings.items() if value is not None}
        made = cls(frozen=frozen, **(own | chosen))  # type: ignore[arg-type]
        for name in ("epochs", "train_batch", "seeds"):
            if getattr(made, name) < 1:
                raise Refused(f"--{name.replace('_', '-')} {getattr(made, name)}: give at least 1")
        if not 0 < made.learning_rate < 1:
            raise Refused(f"--learning-rate {made.learning_rate:g}: give a number between 0 and 1")
        return made

    def facts(self) -> dict[str, bool | int | float | str]:
        """All of them, as a result states them."""
        fixed = {"warmup": WARMUP, "weight_decay": WEIGHT_DECAY, "gradient_clip": GRADIENT_CLIP}
        return asdict(self) | fixed | {"dropout": 0.0 if self.frozen else DROPOUT}
