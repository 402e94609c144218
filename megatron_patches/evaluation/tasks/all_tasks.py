"""Every kind of task that is asked of a checkpoint. Torch-free."""

from megatron_patches.evaluation.tasks.encoder_tasks import EncoderTask
from megatron_patches.evaluation.tasks.task import HarnessTask, LossTask

Task = HarnessTask | LossTask | EncoderTask
