"""The `optimizer:` section of a run: one model for each optimizer, so an option without effect is an unknown key."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from megatron_patches.configuration.section import Section, kind_by_name


class _AnyOptimizer(Section):
    learning_rate: float = Field(gt=0, description="peak learning rate, reached at the end of the warm-up")
    weight_decay: float = Field(
        0.0, ge=0, description="decay of matrices and embeddings, per unit of learning rate; vectors have none"
    )
    weight_decay_by_name: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="decay of parameters by pattern of their names, in place of the rule above; the last pattern that "
        "fits counts",
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


class AdafactorConfig(_AnyOptimizer):
    """Adafactor (Shazeer and Stern 2018): second moments of a matrix kept as one number a row and one a column.

    T5's relative steps are scale_by_parameter with the schedule inverse_square_root (peak 0.01, timescale 10,000).
    """

    name: Literal["adafactor"] = Field(description="kind; it decides which keys there are")
    decay_exponent: float = Field(
        0.8, gt=0, le=1, description="second moments decay by 1 - step ** -decay_exponent (section 7.2)"
    )
    update_clip: float = Field(1.0, gt=0, description="largest root mean square of a tensor's update (section 6)")
    scale_by_parameter: bool = Field(
        True, description="whether the rate is multiplied by the tensor's own root mean square (section 8)"
    )
    epsilon: float = Field(1e-30, gt=0, description="added to squared gradients")
    least_scale: float | None = Field(
        None, gt=0, description="least root mean square that scale_by_parameter multiplies by; unset means 1e-3"
    )

    @property
    def scale_floor(self) -> float:
        """Least root mean square that scale_by_parameter multiplies by."""
        return 1e-3 if self.least_scale is None else self.least_scale

    @model_validator(mode="after")
    def _makes_sense(self) -> "AdafactorConfig":
        if self.least_scale is not None and not self.scale_by_parameter:
            raise ValueError("least_scale has no effect with scale_by_parameter: false; remove it")
        return self


class LionConfig(_AnyOptimizer):
    """Lion (Chen et al. 2023): steps by the sign of an average of gradients."""

    name: Literal["lion"] = Field(description="kind; it decides which keys there are")
    beta1: float = Field(0.9, ge=0, lt=1, description="weight of the average in the sign that is taken")
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the average, per step")


class MuonRestConfig(Section):
    """AdamW for what Muon does not step: embeddings, head, vectors."""

    learning_rate: float = Field(gt=0, description="its peak learning rate; it follows the same schedule")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment, per step")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the second moment, per step")
    epsilon: float = Field(1e-8, gt=0, description="added to the root of the second moment")


class MuonConfig(_AnyOptimizer):
    """Muon (Jordan et al. 2024): momentum, orthogonalised, for the matrices inside blocks; AdamW for the rest."""

    name: Literal["muon"] = Field(description="kind; it decides which keys there are")
    momentum: float = Field(0.95, ge=0, lt=1, description="decay of the momentum, per step")
    nesterov: bool = Field(True, description="whether the step looks ahead along the momentum")
    newton_schulz_steps: int = Field(5, gt=0, description="iterations of the orthogonalisation")
    update_scale: Literal["shape", "rms"] = Field(
        "shape",
        description="what an orthogonalised step is multiplied by: shape, sqrt(max(1, rows / columns)); or rms, "
        "0.2 sqrt(max(rows, columns)), which lets AdamW's learning rates be kept (Liu et al. 2025)",
    )
    rest: MuonRestConfig = Field(description="AdamW for embeddings, head and vectors")

    @model_validator(mode="after")
    def _makes_sense(self) -> "MuonConfig":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov has no effect with momentum 0; set nesterov: false")
        return self


OptimizerConfig = Annotated[
    Annotated[AdamWConfig | SGDConfig | AdafactorConfig | LionConfig | MuonConfig, Field(discriminator="name")],
    BeforeValidator(kind_by_name),
]
