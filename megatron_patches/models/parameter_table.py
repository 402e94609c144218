"""Every parameter of a run's model: names, shapes and all else that is known of them, whatever the architecture.

Torch-free: command lines count parameters and match patterns of names with it.
"""

from functools import lru_cache

from data_tools.samples.lengths import SampleLengths
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.registry import architecture_of
from megatron_patches.parameters.row import ParameterRow


@lru_cache(maxsize=64)  # tuning asks for one model's table thousands of times
def parameter_table(model: ModelSection, lengths: SampleLengths) -> tuple[ParameterRow, ...]:
    """All parameters, first layer to last, each once; tables of positions are as long as the samples."""
    return tuple(architecture_of(model).parameters(model, lengths))
