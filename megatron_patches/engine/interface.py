"""The engine's interface: what the trainer knows of DeepSpeed is here, and nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.parallel.state_piece import StatePiece


class Engine(ABC):
    """One model and its optimizer on one layout."""

    @abstractmethod
    def forward_backward(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Gradients of one global batch, summed over micro-batches and data-parallel ranks.

        Weights of the micro-batches already hold the division by the global count of targets. Returns the loss of the
        global batch, a scalar on the device, the same on every rank.
        """

    @abstractmethod
    def grad_norm(self) -> Tensor:
        """L2 norm of the whole model's gradient, every parameter counted once; a scalar on the device."""

    @abstractmethod
    def step(self, learning_rate: float, norm: Tensor) -> None:
        """Clip by the norm, update, forget the gradients. Where the norm is not finite nothing is updated."""

    @abstractmethod
    def scale(self) -> Tensor | None:
        """By what the losses of the step at hand are multiplied in fp16, a scalar on the device; None otherwise.

        `step` changes it in place.
        """

    @abstractmethod
    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Loss as `forward_backward` returns it, without gradients or dropout."""

    @abstractmethod
    def state(self) -> list[StatePiece]:
        """Everything that a checkpoint must hold of this rank, as views that loading may write to."""

    @abstractmethod
    def optimizer_steps(self) -> int:
        """Updates the optimizer has applied, 0 of one that does not count them (SGD, Lion); waits for the device."""

    @abstractmethod
    def set_optimizer_steps(self, steps: int) -> None:
        """Tell the optimizer, after its moments were loaded, how many updates they come from."""

    @abstractmethod
    def scalars(self) -> dict[str, float]:
        """Numbers of the training state that every rank holds alike: the loss scale's; waits for the device."""

    @abstractmethod
    def load_scalars(self, scalars: dict[str, float]) -> None:
        """Continue from what `scalars` returned; where there is nothing, from the start."""

    @abstractmethod
    def parameter_count(self) -> int:
        """Parameters of the whole model, each counted once."""
