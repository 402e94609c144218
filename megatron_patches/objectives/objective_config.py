"""The `objective:` section of a run: what a sample asks the model to predict, and what else is added to the loss."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from data_tools.section import Section, kind_by_name


class _AnyObjective(Section):
    reset_attention: bool = Field(False, description="whether tokens see nothing before their own document's beginning")
    reset_positions: bool = Field(False, description="whether positions count from each document's beginning")
    loss_after_end_of_document: bool = Field(
        True, description="whether an end-of-document token predicts the unrelated token behind it"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each target's weight that is spread evenly over the vocabulary, its padding included",
    )
    z_loss: float = Field(
        0.0, ge=0, description="coefficient of the squared log of the softmax's denominator (PaLM, section 5: 1e-4)"
    )

    @property
    def reads_document_ends(self) -> list[str]:
        """The settings that need to know where a document ends, as people write them."""
        asked = {
            "objective.reset_attention: true": self.reset_attention,
            "objective.reset_positions: true": self.reset_positions,
            "objective.loss_after_end_of_document: false": not self.loss_after_end_of_document,
        }
        return [setting for setting, reads in asked.items() if reads]


class CausalConfig(_AnyObjective):
    """Every token predicts the next one."""

    name: Literal["causal"] = Field(description="kind; it decides which keys there are")


class PrefixLMConfig(_AnyObjective):
    """A prefix of random length sees itself whole; what follows is predicted token by token (Raffel et al. 2020)."""

    name: Literal["prefix_lm"] = Field(description="kind; it decides which keys there are")
    loss_on_targets_only: bool = Field(
        True, description="whether tokens of the prefix, which see what they would predict, count nothing"
    )
    reweight_by_position: bool = Field(
        False,
        description="whether position i of s weighs 2 (s - i) / (s + 1): late positions are targets more often than "
        "early ones",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "PrefixLMConfig":
        """The weights make up for prefixes of a whole sample that count nothing (`prefix_lm.position_weights`)."""
        if self.reweight_by_position and not self.loss_on_targets_only:
            raise ValueError(
                "reweight_by_position needs loss_on_targets_only: with a loss on the prefix too, every position is a "
                "target equally often; leave one of them out"
            )
        if self.reweight_by_position and self.reset_attention:
            raise ValueError(
                "reweight_by_position does not go with reset_attention: each document has a prefix of its own, and the "
                "weights are those of places in the whole sample; leave one of them out"
            )
        return self


def _causal_unless_named(value: Any) -> Any:
    """A section without a name is the usual objective's."""
    return {"name": "causal", **value} if isinstance(value, Mapping) else kind_by_name(value)


ObjectiveConfig = Annotated[
    Annotated[CausalConfig | PrefixLMConfig, Field(discriminator="name")], BeforeValidator(_causal_unless_named)
]
