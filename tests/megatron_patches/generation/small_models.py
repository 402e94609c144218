"""Generator and scorer over models without a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from megatron_patches.generation.model_on_rank import ModelOnRank
    from megatron_patches.parallel.process_groups import ProcessGroups

WINDOW = 24
SIZES: dict[str, object] = {
    "layers": 3, "hidden_size": 32, "attention_heads": 4, "ffn_size": 48, "vocab_size": 61, "init_std": 0.3
}  # fmt: skip


def start(world: int = 1, pipeline: int = 1) -> ProcessGroups:
    """fp32 process groups of so many ranks, tensor-parallel ones in each of these stages."""
    import torch

    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    return start_process_groups(Layout(world // pipeline, pipeline, 1), torch.float32)


def small_model(switches: Mapping[str, object], groups: ProcessGroups, prefixes: bool = False) -> ModelOnRank:
    """A model of random weights, biases and norms included."""
    import torch

    from megatron_patches.generation.model_on_rank import ModelOnRank, Readings
    from megatron_patches.models.blueprint import draw_up
    from megatron_patches.models.build import PlainModel, canonical_parameters, of_this_stage
    from megatron_patches.models.gpt.gpt_config import GPTConfig
    from megatron_patches.models.pipeline_partition import plan_stages
    from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.info import derive_seed, info_of

    config = GPTConfig.model_validate({**SIZES, **switches})
    objective: Any = PrefixLMConfig(name="prefix_lm") if prefixes else CausalConfig(name="causal")
    randomness = StepRandomness(0, groups.coordinates, groups.device)

    def blueprint(inputs: Any) -> Any:
        whole = draw_up(config, objective.lengths(WINDOW), inputs, groups, randomness, 3)
        return of_this_stage(whole, plan_stages(config, objective.lengths(WINDOW), groups.layout.pipeline))

    model = PlainModel(blueprint(objective.prompt_inputs))
    for name, parameter in canonical_parameters(model).items():
        if parameter.dim() == 1:  # one that is all zeros or ones would hide that it is not used
            whole = info_of(parameter).slice
            draw = torch.Generator().manual_seed(derive_seed(name))
            values = torch.rand(whole.global_shape, generator=draw) + (0.5 if "norm.weight" in name else 0)
            with torch.no_grad():
                parameter.copy_(values[tuple(slice(*each) for each in whole.box)].reshape(parameter.shape))
    model.eval()
    readings = Readings(objective.inputs, objective.prompt_inputs, keeps_keys=True)
    return ModelOnRank(model, lambda inputs: model.reading(blueprint(inputs)), readings, groups, config.vocab_size)
