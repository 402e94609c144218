"""The `checkpoint:` section of a run."""

from pydantic import Field, model_validator

from megatron_patches.configuration.section import Section


class CheckpointConfig(Section):
    """When the run saves itself, and which of its checkpoints stay.

    It also saves at its end, when it is asked to stop, and when a file `save-requested` appears in its directory.
    """

    every_steps: int = Field(gt=0, description="steps between two checkpoints")
    ephemeral_every_steps: int | None = Field(
        None,
        gt=0,
        description="steps between checkpoints that go as soon as a newer one is verified; one is left out while "
        "another is still being written",
    )
    weights_every_steps: int | None = Field(
        None, gt=0, description="steps between checkpoints of weights alone, which stay; a run cannot resume from them"
    )
    keep_last: int | None = Field(
        None,
        gt=0,
        description="newest checkpoints that stay, besides those saved at a stop or because somebody asked; older ones "
        "go when a newer one was read back and is whole; unset means all stay",
    )
    keep_every_steps: int | None = Field(None, gt=0, description="checkpoints of multiples of so many steps stay")
    keep_best: int = Field(0, ge=0, description="checkpoints of lowest validation loss that stay")
    best_by: str | None = Field(
        None,
        description="validation group by whose loss the best checkpoint is told, for keep_best, RUN@best and tables; "
        "unset means the first of data.validation",
    )
    pin_spikes_above: float | None = Field(
        None,
        gt=1,
        description="a loss of more than so many times the median of the last 100 steps pins the checkpoint before it "
        "and the next one; unset means never",
    )
    allow_from_scratch: bool = Field(
        False,
        description="begin at step 0 although the run's folder holds work that cannot be resumed from, such as weights "
        "alone or damaged checkpoints; a checkpoint that is whole is resumed from all the same",
    )
    allow_rate_jump_at: int | None = Field(
        None,
        gt=0,
        description="step at which the learning rate may jump: that of the checkpoint which is resumed from; unset "
        "means that a resume whose learning rate would jump is refused",
    )
    asynchronous: bool = Field(
        True,
        description="whether files are written while training goes on, from a copy in the host's memory that is "
        "reserved at the start; otherwise steps wait",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "CheckpointConfig":
        every = self.every_steps
        if self.keep_last is None:
            for key, value in (("keep_every_steps", self.keep_every_steps), ("keep_best", self.keep_best)):
                if value:
                    raise ValueError(f"{key} has no effect while all checkpoints stay; set keep_last, or remove {key}")
        if self.keep_every_steps and self.keep_every_steps % every:
            raise ValueError(
                f"keep_every_steps {self.keep_every_steps} is no multiple of every_steps {every}: most of those "
                "checkpoints would never be made; choose a multiple"
            )
        if self.ephemeral_every_steps and self.ephemeral_every_steps >= every:
            raise ValueError(
                f"ephemeral_every_steps {self.ephemeral_every_steps} is not below every_steps {every}; use less, or "
                "remove it"
            )
        if self.weights_every_steps and self.weights_every_steps % every == 0 and self.keep_last is None:
            raise ValueError(
                f"weights_every_steps {self.weights_every_steps} is a multiple of every_steps {every}, and all those "
                "checkpoints stay with their weights; remove it, choose another interval, or set keep_last"
            )
        return self
