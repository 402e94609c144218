"""The `objective:` section of a run: what a sample asks the model to predict, and what else is added to the loss."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, field_validator, model_validator
from pydantic_core import PydanticKnownError

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import DOCUMENTS, PICKED, POSITIONS, TOKENS, VISIBLE, AttentionKind, ModelInputs
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
    def text_inputs(self) -> ModelInputs | None:
        """The fields for a whole text whose tokens all see each other; None where a token sees those before it."""
        return None

    @property
    def token_roles(self) -> tuple[str, ...]:
        """Roles that the tokenizer must have a token for, such as `mask`."""
        return ()

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

    impossible: ClassVar[Mapping[str, str]] = {
        "masked_logits_only": "every token predicts the next one, so the logits of all positions are needed"
    }

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


def _require_share(value: Any) -> Any:
    """Whatever is no number is told by its type."""
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < 1:
        raise ValueError(
            f"{value} is not above 0 and below 1: at 0 no token is to be predicted, and at 1 none is left to predict "
            "them from; NeoBERT has 0.2, BERT 0.15"
        )
    return value


class ProbabilityRampConfig(Section):
    """A probability that goes in a straight line from one number to another, over samples."""

    start: float = Field(gt=0, lt=1, description="probability at the first sample of the run")
    end: float = Field(gt=0, lt=1, description="probability from the last sample of the ramp on, and in validation")
    samples: int = Field(gt=0, description="samples over which it goes from start to end")

    _range = field_validator("start", "end", mode="before")(_require_share)

    @model_validator(mode="after")
    def _goes_somewhere(self) -> "ProbabilityRampConfig":
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start:g}, so nothing changes; write the number alone")
        return self


Probability = Annotated[float, Field(gt=0, lt=1)]


@OBJECTIVES.register
class MaskedLMConfig(ObjectiveSection):
    """Some tokens are hidden, and the model says what they were (Devlin et al. 2019)."""

    name: Literal["masked_lm"] = Field(description="kind; it decides which keys there are")
    probability: Probability | ProbabilityRampConfig = Field(
        0.15,
        description="probability that a token is one to be predicted; or one that changes over samples: {start: 0.3, "
        "end: 0.15, samples: 1000000}",
    )
    mask_all: bool = Field(
        False,
        description="whether every token that is to be predicted is replaced by the mask token; otherwise 80 % are, 10 "
        "% by a random token, and 10 % stay as they are",
    )
    masked_logits_only: bool = Field(
        True,
        description="whether logits are made of the tokens that are to be predicted alone; false makes all of them, "
        "for comparison",
    )
    reset_attention: bool = Field(True, description="whether tokens see their own document alone")

    @field_validator("probability", mode="wrap")
    @classmethod
    def _of_its_own_type(cls, value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
        """A union alone would tell of a wrong ramp that it is no number either."""
        if isinstance(value, Mapping):
            return validated(ProbabilityRampConfig.model_validate(value))
        if isinstance(value, bool) or not isinstance(value, int | float | ProbabilityRampConfig):
            raise PydanticKnownError("float_type")
        return validated(_require_share(value))

    def lengths(self, sequence_length: int) -> SampleLengths:
        return SampleLengths(
            read=sequence_length,
            stride=sequence_length,
            positions=(("tokens", sequence_length),),
            counted=sequence_length,
            picked=ceil(sequence_length * self.largest_probability) if self.masked_logits_only else None,
        )

    @property
    def largest_probability(self) -> float:
        """The largest probability of any sample."""
        ramp = self.probability
        return max(ramp.start, ramp.end) if isinstance(ramp, ProbabilityRampConfig) else ramp

    @property
    def inputs(self) -> ModelInputs:
        picked = (PICKED,) if self.masked_logits_only else ()
        if not self.reset_attention:
            return ModelInputs((TOKENS, *picked), "full")
        return ModelInputs((TOKENS, POSITIONS, DOCUMENTS, *picked), "documents", within_documents=True)

    @property
    def text_inputs(self) -> ModelInputs:
        return ModelInputs((TOKENS,), "full")

    @property
    def token_roles(self) -> tuple[str, ...]:
        return ("mask",)

    @property
    def reads_document_ends(self) -> list[str]:
        return ["objective.reset_attention: true"] if self.reset_attention else []

    def describe(self) -> str:
        ramp = self.probability
        share = f"{ramp.start:g} to {ramp.end:g}" if isinstance(ramp, ProbabilityRampConfig) else f"{ramp:g}"
        kind = "all by the mask token" if self.mask_all else "80/10/10"
        told = ["masked LM", f"probability {share}", kind]
        told += [] if self.masked_logits_only else ["all logits"]
        return ", ".join([*told, *([] if self.reset_attention else ["documents see each other"])])


ObjectiveConfig = Annotated[ObjectiveSection, OBJECTIVES]
