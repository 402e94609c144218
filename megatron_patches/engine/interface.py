"""The engine's interface: what the trainer knows of DeepSpeed is here, and nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.objectives.tally import Tally
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
    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> dict[str, Tally]:
        """What there is to measure of one global batch, by name, without gradients or dropout; waits for the device.

        `loss` is the mean negative log-likelihood in nats, weighted as `forward_backward` weights the loss. The same on
        every rank.
        """

    @abstractmethod
    def state(self) -> list[StatePiece]:
        """Everything that a checkpoint must hold of this rank, as views that loading may write to."""

    @abstractmethod
    def counters(self) -> dict[str, Tensor]:
        """Numbers of the training state that every rank holds alike: live scalars on the device, nothing is waited for.

        `optimizer_steps` are the updates that the optimizer has applied, 0 of one that does not count them (SGD, Lion).
        In fp16 the loss scale's `scale`, `clean_steps` and `hysteresis_left` are there too; `scale` is what the losses
        of the step at hand are multiplied by. `step` changes all of them in place.
        """

    @abstractmethod
    def load_counters(self, counters: Mapping[str, float]) -> None:
        """Continue from numbers that `counters` returned, after the moments were loaded.

        Those of a loss scale may be missing, or there without need: what ran in another precision had none.
        """

    @abstractmethod
    def parameter_count(self) -> int:
        """Parameters of the whole model, each counted once."""
