"""The `objective:` section of a run: what a sample asks the model to predict, and what else is added to the loss."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, TOKENS, VISIBLE, AttentionKind, ModelInputs
from megatron_patches.configuration.kinds import Kinds
from megatron_patches.configuration.section import Section


@dataclass(frozen=True)
class LossTerms:
    """What is added to the negative log-likelihood in training."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


class ObjectiveSection(Section):
    """The `objective:` section, whatever its kind: what the rest of a run asks it."""

    @abstractmethod
    def lengths(self, sequence_length: int) -> SampleLengths:
        """How long samples are where `data.sequence_length` is this."""

    @property
    @abstractmethod
    def inputs(self) -> ModelInputs:
        """The fields that it gives the model to read."""

    @property
    def prompt_inputs(self) -> ModelInputs | None:
        """The fields for a text that is to be continued, one document; None where the objective writes no text."""
        return None

    @property
    def loss_terms(self) -> LossTerms:
        """What it adds to the loss."""
        return LossTerms()

    @property
    def reads_document_ends(self) -> list[str]:
        """The settings that need to know where a document ends, as people write them."""
        return []

    @abstractmethod
    def describe(self) -> str:
        """The objective in a few words."""


OBJECTIVES: Kinds[ObjectiveSection] = Kinds(default="causal")
"""what a run's `objective:` may be; `objectives/build.py` knows what makes their batches"""


class _NextToken(ObjectiveSection):
    """Tokens predict the next one, so a sample reads one more than the model sees."""

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

    def lengths(self, sequence_length: int) -> SampleLengths:
        return SampleLengths(
            read=sequence_length + 1,
            stride=sequence_length,
            positions=(("tokens", sequence_length),),
            counted=sequence_length,
        )

    @property
    def prompt_inputs(self) -> ModelInputs:
        return ModelInputs((TOKENS,), "causal")

    @property
    def loss_terms(self) -> LossTerms:
        return LossTerms(self.label_smoothing, self.z_loss)

    @property
    def reads_document_ends(self) -> list[str]:
        asked = {
            "objective.reset_attention: true": self.reset_attention,
            "objective.reset_positions: true": self.reset_positions,
            "objective.loss_after_end_of_document: false": not self.loss_after_end_of_document,
        }
        return [setting for setting, reads in asked.items() if reads]

    def _described(self, *kind: str) -> str:
        switches = {
            "attention reset at documents": self.reset_attention,
            "positions reset at documents": self.reset_positions,
            "no loss after end of document": not self.loss_after_end_of_document,
            f"label smoothing {self.label_smoothing:g}": self.label_smoothing > 0,
            f"z-loss {self.z_loss:g}": self.z_loss > 0,
        }
        return ", ".join([*kind, *(text for text, is_on in switches.items() if is_on)])


@OBJECTIVES.register
class CausalConfig(_NextToken):
    """Every token predicts the next one."""

    name: Literal["causal"] = Field(description="kind; it decides which keys there are")

    @property
    def inputs(self) -> ModelInputs:
        switched = ((POSITIONS, self.reset_positions), (DOCUMENTS, self.reset_attention))
        attention: AttentionKind = "causal_documents" if self.reset_attention else "causal"
        return ModelInputs((TOKENS, *(field for field, is_on in switched if is_on)), attention, self.reset_attention)

    def describe(self) -> str:
        return self._described("causal")


@OBJECTIVES.register
class PrefixLMConfig(_NextToken):
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
                "weights are those of positions in the whole sample; leave one of them out"
            )
        return self

    @property
    def inputs(self) -> ModelInputs:
        positions = [POSITIONS] if self.reset_positions else []
        return ModelInputs((TOKENS, *positions, VISIBLE), "ranges", self.reset_attention)

    @property
    def prompt_inputs(self) -> ModelInputs:
        return ModelInputs((TOKENS, VISIBLE), "ranges")

    def describe(self) -> str:
        loss = "loss on targets only" if self.loss_on_targets_only else "loss on the prefix too"
        return self._described("prefix-LM", loss, *["reweighted by position"] * self.reweight_by_position)


ObjectiveConfig = Annotated[ObjectiveSection, OBJECTIVES]
