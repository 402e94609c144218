"""Sizes of the three axes that a run's ranks are laid out on, and a rank's place among them. Torch-free."""

from dataclasses import dataclass

from megatron_patches.training.training_config import TrainingConfig


@dataclass(frozen=True)
class Coordinates:
    """One rank's place in the layout."""

    pipeline: int
    data: int
    tensor: int


@dataclass(frozen=True)
class Layout:
    """Sizes of the three axes; ranks are ordered (pipeline, data, tensor), tensor fastest."""

    tensor: int
    pipeline: int
    data: int
    sequence_parallel: bool = False
    """tensor-parallel ranks share the tokens between the matrices"""

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.tensor * self.pipeline * self.data

    def coordinates(self, rank: int) -> Coordinates:
        """Place of a rank."""
        rest, tensor = divmod(rank, self.tensor)
        pipeline, data = divmod(rest, self.data)
        return Coordinates(pipeline=pipeline, data=data, tensor=tensor)

    def zero_stage(self, asked: int) -> int:
        """The ZeRO stage that this layout runs for the one that a run asks for.

        Of one data-parallel rank stages 1 and 2 share nothing, and cost: DeepSpeed copies all gradients twice, into a
        bucket and into one flat tensor to step, and keeps fp32 masters of fp32 weights. At 3M parameters in fp32 that
        was 78 MB at most at once in place of 56. Stage 0 steps the same numbers.
        """
        return 0 if self.data == 1 and asked in (1, 2) else asked

    def micro_batches(self, training: TrainingConfig) -> int:
        """Micro-batches that each data-parallel rank accumulates in one step, once the batch has grown."""
        return training.global_batch_size // (training.micro_batch_size * self.data)
