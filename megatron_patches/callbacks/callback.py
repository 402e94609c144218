"""What a feature of the training loop may do: override the events it needs, and list it in `callbacks/build.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_patches.progress import Outcome, ProfileRecord, StepRecord, ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.checkpoint.saver import SaveRecord
    from megatron_patches.trainer import Trainer


class Callback:
    """Events come in the order in which callbacks are listed.

    Those that record exist on rank 0 alone; all others hear every event on every rank, and may talk to other ranks.
    One with a state names it in `state_key`: rank 0's is saved, and every rank loads it.
    """

    state_key: str | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of this launch; a resumed run has its progress already."""

    def after_update(self, trainer: Trainer) -> None:
        """After the weights changed; numbers of the step are still on the device."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        """The numbers of a step are known: on a GPU one step later, on a CPU before `after_update`."""

    def on_validation(self, trainer: Trainer, record: ValidationRecord) -> None:
        """A validation was made."""

    def on_profile(self, trainer: Trainer, record: ProfileRecord) -> None:
        """Some steps were profiled; the numbers are this rank's own."""

    def on_checkpoint(self, trainer: Trainer, record: SaveRecord) -> None:
        """A checkpoint is whole on the disk; training may be steps beyond it."""

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
        """Take back what `state` returned; not called for a checkpoint from before the callback had a state."""
