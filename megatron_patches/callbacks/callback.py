"""What a feature of the training loop may do: override the events it needs, and list it in `callbacks/build.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_patches.progress import StepRecord, ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.trainer import Outcome, Trainer


class Callback:
    """Every event happens on every rank, in the order in which callbacks are listed.

    A callback that talks to other ranks does so on all of them; one that writes does so where `trainer.speaks` is true.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of this launch; a resumed run has its progress already."""

    def after_update(self, trainer: Trainer) -> None:
        """After the weights changed; numbers of the step are still on the device."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        """The numbers of a step are known, one step later."""

    def on_validation(self, trainer: Trainer, record: ValidationRecord) -> None:
        """A validation was made."""

    def on_checkpoint(self, trainer: Trainer, folder: Path) -> None:
        """A checkpoint is complete."""

    def on_message(self, trainer: Trainer, text: str) -> None:
        """Something people should know."""

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        """After the last step of this launch, whatever ended it but a failure."""

    def on_failure(self, trainer: Trainer, error: Exception) -> None:
        """This rank raised; other ranks may not have, so nothing here may wait for them."""

    def close(self) -> None:
        """Release files and handlers; also called after a failure."""

    def state(self) -> dict[str, Any]:
        """What the callback must know after a resume, as JSON; saved in every checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
