"""The `training:` section of a run: how long, how much at once, in which precision."""

from itertools import accumulate, pairwise
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from megatron_patches.configuration.section import Section, as_list
from megatron_patches.optim.schedule_config import Unit

AttentionKernel = Literal["auto", "flash", "flash_attn", "cudnn", "efficient", "math"]

CompileBackend = Literal["inductor", "aot_eager", "eager"]

Ends = Annotated[list[Annotated[int, Field(gt=0)]], BeforeValidator(as_list)]

UNITS: tuple[Unit, ...] = get_args(Unit)


class BatchRampConfig(Section):
    """A global batch that grows; every size is kept for an equal number of samples."""

    start: int = Field(gt=0, description="first global batch, samples")
    increment: int = Field(gt=0, description="samples by which the global batch grows each time")
    samples: int = Field(gt=0, description="samples after which the global batch is global_batch_size")


class LossScaleConfig(Section):
    """Dynamic loss scaling of fp16 (Micikevicius et al. 2018, section 3.2)."""

    initial: float = Field(65536.0, ge=1, description="scale of the first step, a factor")
    window: int = Field(1000, gt=0, description="steps without overflow after which the scale is doubled")
    hysteresis: int = Field(2, gt=0, description="overflows after which the scale is halved")
    minimum: float = Field(1.0, gt=0, description="least scale, a factor")

    @model_validator(mode="after")
    def _makes_sense(self) -> "LossScaleConfig":
        if self.minimum > self.initial:
            raise ValueError(
                f"minimum {self.minimum:g} is above initial {self.initial:g}; use at most {self.initial:g}"
            )
        return self


class TrainingConfig(Section):
    """Length, batch, precision, memory and seed."""

    steps: int | None = Field(None, gt=0, description="optimizer steps of the whole run; or give samples, or tokens")
    samples: int | None = Field(None, gt=0, description="samples of the whole run, rounded down to whole steps")
    tokens: int | None = Field(None, gt=0, description="tokens of the whole run, rounded down to whole steps")
    extend_to: Ends = Field(
        [],
        description="where the run ends instead, in the unit of its length; a list if it is extended several times, "
        "each time from the end before it (schedule.extensions)",
    )
    extend_by: Ends = Field([], description="the same, told as what is added to the end before it; give one of the two")
    global_batch_size: int = Field(gt=0, description="samples of one optimizer step, over all ranks")
    batch_ramp: BatchRampConfig | None = Field(None, description="growth of the global batch; unset means none")
    micro_batch_size: int = Field(gt=0, description="samples one rank puts through the model at once")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "bf16", description="type of weights and activations; bf16 and fp16 keep fp32 master weights and gradients"
    )
    fp8: Literal["none", "tensorwise"] = Field(
        "none",
        description="whether the matrices of attention and MLP are multiplied in float8, each tensor scaled by its "
        "largest magnitude; goes with precision bf16",
    )
    loss_scale: LossScaleConfig | None = Field(
        None, description="dynamic loss scaling of fp16; unset means its defaults with fp16, and none otherwise"
    )
    recomputation: Literal["none", "selective", "full"] = Field(
        "none",
        description="what the backward pass computes again instead of keeping: nothing, attention's inside and the "
        "MLP's activation, or whole blocks",
    )
    compile: bool | None = Field(
        None, description="whether each block is compiled by torch.compile; unset means on a GPU, except under ZeRO 3"
    )
    compile_backend: CompileBackend = Field(
        "inductor",
        description="what makes code of a compiled block's graph: inductor, which fuses operations; aot_eager and "
        "eager fuse none, and show whether a fault is inductor's or lies in the graph",
    )
    compile_dynamic: bool = Field(
        False,
        description="whether a compiled block takes tensors of any shape; false compiles it for each shape, and a "
        "run's micro-batches have one",
    )
    attention_kernel: AttentionKernel = Field(
        "auto",
        description="what computes attention: torch's flash, cudnn, efficient (less memory than math, any precision), "
        "math (all scores written out), or the first of them that can; or flash_attn, the package of that name (extra "
        "flash); `tools/tflops bench --vary` measures them",
    )
    trainable: list[str] = Field(
        ["*"],
        description="patterns of parameter names that are trained; ['*.bias'] is BitFit, with weight_decay 0",
    )
    frozen: list[str] = Field(
        [], description="patterns of parameter names that are not trained, whatever trainable says"
    )
    seed: int = Field(1234, ge=0, description="decides initial weights, order of samples and dropout")

    @property
    def compile_settings(self) -> dict[str, str]:
        """What is set otherwise than usual of how blocks are compiled: key and value, as in a run's YAML."""
        settings = {} if self.compile_backend == "inductor" else {"compile_backend": str(self.compile_backend)}
        return settings | ({"compile_dynamic": "true"} if self.compile_dynamic else {})

    @property
    def length_unit(self) -> Unit:
        """What the length of the run is given in, which is the key's name too."""
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def lengths(self) -> list[int]:
        """Where the run ends at first, and where each of its extensions does, in the unit of its length."""
        first = getattr(self, self.length_unit)
        assert isinstance(first, int)
        return list(accumulate([first, *self.extend_by])) if self.extend_by else [first, *self.extend_to]

    @property
    def end_key(self) -> str:
        """The key that says where the run ends, extensions counted."""
        return "extend_by" if self.extend_by else "extend_to" if self.extend_to else self.length_unit

    @model_validator(mode="after")
    def _extends(self) -> "TrainingConfig":
        given = [key for key in UNITS if getattr(self, key) is not None]
        if self.extend_to and self.extend_by:
            raise ValueError("extend_to and extend_by both say where the run ends; keep one of them")
        for number, (reached, end) in enumerate(pairwise(self.lengths if len(given) == 1 else [])):
            if end <= reached:
                before = f"extend_to {reached}, the end before it" if number else f"{given[0]} {reached}"
                raise ValueError(
                    f"extend_to {end} is not beyond {before}: an extension is longer; use more than {reached}"
                )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        given = [key for key in UNITS if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(
                f"steps, samples or tokens says how long the run is; given: {found}. Keep one; null takes away "
                "an inherited one (--training.steps null)"
            )
        return self

    @model_validator(mode="after")
    def _compiles(self) -> "TrainingConfig":
        if self.compile is False:
            for key, value in self.compile_settings.items():
                raise ValueError(f"{key} {value} has no effect with compile false; remove it, or use compile: true")
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> "TrainingConfig":
        if self.loss_scale is not None and self.precision != "fp16":
            raise ValueError(f"loss_scale has no effect with precision {self.precision}; remove it, or use fp16")
        if self.fp8 != "none" and self.precision != "bf16":
            raise ValueError(
                f"fp8 {self.fp8} does not go with precision {self.precision}: its products come out in bf16, the type "
                "that cuBLAS gives and whose range needs no loss scale; use precision: bf16, or fp8: none"
            )
        ramp = self.batch_ramp
        if ramp is not None:
            growth = self.global_batch_size - ramp.start
            if growth <= 0 or growth % ramp.increment:
                raise ValueError(
                    f"batch_ramp grows from {ramp.start} by {ramp.increment} and never meets global_batch_size "
                    f"{self.global_batch_size}; choose an increment that divides the difference, {growth}"
                )
        return self
