"""The `optimizer:` section of a run: one model for each optimizer, so an option without effect is an unknown key."""

from typing import Annotated, Literal

from pydantic import Field

from data_tools.section import Section


class _AnyOptimizer(Section):
    learning_rate: float = Field(gt=0, description="peak learning rate, reached at the end of the warm-up")
    weight_decay: float = Field(
        0.0, ge=0, description="decay of matrices and embeddings, per unit of learning rate; vectors have none"
    )
    gradient_clip: float = Field(
        1.0, ge=0, description="largest L2 norm of the whole model's gradient, over all ranks; 0 leaves it alone"
    )


class AdamWConfig(_AnyOptimizer):
    """AdamW (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = Field(description="kind; it decides which keys there are")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment, per step")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the second moment, per step")
    epsilon: float = Field(1e-8, gt=0, description="added to the root of the second moment")


class SGDConfig(_AnyOptimizer):
    """Stochastic gradient descent; its decay is added to the gradient."""

    name: Literal["sgd"] = Field(description="kind; it decides which keys there are")
    momentum: float = Field(0.0, ge=0, lt=1, description="decay of the velocity, per step")


OptimizerConfig = Annotated[AdamWConfig | SGDConfig, Field(discriminator="name")]
