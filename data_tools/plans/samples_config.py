"""The `data.samples:` section of a run: how the tokens of documents are cut into samples."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from megatron_patches.configuration.kinds import Kinds
from megatron_patches.configuration.section import Section

OF_CHARACTERS = ("minimum_characters", "maximum_punctuation", "maximum_non_alphanumeric", "maximum_upper_case")
"""filters that look at the characters of a text, and so need the tokenizer"""
PLACES_AROUND = 2
"""places of a sample that cls and sep take around each wrapped text"""
LONGEST_SAMPLE = (1 << 31) - 1
"""tokens; plans hold lengths in 32 bits"""


class FiltersConfig(Section):
    """What a text must be to be read. Each filter counts what it removes; the first one that applies counts."""

    minimum_tokens: int | None = Field(None, ge=2, description="fewest tokens of a text that is kept")
    maximum_tokens: int | None = Field(None, ge=1, description="most tokens of a text that is kept")
    minimum_characters: int | None = Field(
        None, ge=1, description="fewest characters (Unicode code points) of a text that is kept"
    )
    maximum_punctuation: float | None = Field(
        None, ge=0, lt=1, description="largest share of a text's characters that are punctuation (Unicode category P)"
    )
    maximum_non_alphanumeric: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="largest share of a text's characters that are neither letters nor digits; white space counts",
    )
    maximum_upper_case: float | None = Field(
        None, ge=0, lt=1, description="largest share of a text's characters that are upper-case letters"
    )

    @property
    def given(self) -> dict[str, JsonValue]:
        """The filters that were asked for."""
        return self.model_dump(exclude_none=True)

    @property
    def read_characters(self) -> bool:
        """Whether any of them looks at characters."""
        return not self.given.keys().isdisjoint(OF_CHARACTERS)

    @model_validator(mode="after")
    def _leaves_something(self) -> "FiltersConfig":
        if self.maximum_tokens is not None and self.maximum_tokens < (self.minimum_tokens or 1):
            raise ValueError(
                f"maximum_tokens {self.maximum_tokens} is less than minimum_tokens {self.minimum_tokens}, so that no "
                "text is left; give a larger maximum, or a smaller minimum"
            )
        return self

    def problems(self, room: int, whole: str | None) -> Iterator[str]:
        """Why they cannot be used on texts of at most `room` tokens.

        Args:
            whole: the setting that keeps texts at this length; None where they may be longer.
        """
        if whole is not None and self.maximum_tokens is not None and self.maximum_tokens >= room:
            yield (
                f"data.samples.filters.maximum_tokens {self.maximum_tokens} has no effect: with {whole} no text has "
                f"more than {room} tokens, what a sample has room for; give a smaller number, or leave it out"
            )
        if whole is not None and self.minimum_tokens is not None and self.minimum_tokens > room:
            yield (
                f"data.samples.filters.minimum_tokens {self.minimum_tokens} leaves nothing: with {whole} no text has "
                f"more than {room} tokens, what a sample has room for; give a smaller number, or a longer "
                "data.sequence_length"
            )


class SamplesSection(Section):
    """The `data.samples:` section, whatever its kind."""

    name: str

    @property
    def knows_texts(self) -> bool:
        """Whether a sample says which of its tokens are one text, so that nothing else must tell where texts end."""
        return False

    @property
    def holds_several(self) -> bool:
        """Whether a sample may hold several whole texts."""
        return False

    def problems(self, read: int) -> Iterator[str]:
        """Why it cannot be used where a sample reads `read` tokens, as sentences with their remedies."""
        yield from ()

    def decides(self, read: int) -> dict[str, JsonValue]:
        """What of it decides a plan of samples of `read` tokens: two sections that say the same have one plan."""
        return {}


SAMPLES: Kinds[SamplesSection] = Kinds(default="stream")
"""what a run's `data.samples:` may be"""


@SAMPLES.register
class StreamConfig(SamplesSection):
    """The documents end to end, cut at equal distances: samples begin and end within documents."""

    name: Literal["stream"] = Field(description="kind; it decides which keys there are")


class FilteredSection(SamplesSection):
    """A kind that chooses texts."""

    filters: FiltersConfig = Field(FiltersConfig(), description="what a text must be to be read")
    answers_only: bool = Field(
        True, description="whether of pairs and chats the answers alone are to be predicted; otherwise all tokens are"
    )
    wrapped: bool = Field(
        False,
        description="whether each text of a sample begins with the tokenizer's cls token and ends with its sep token, "
        "which take two places of the sample, and padding is its pad token",
    )

    def room(self, read: int) -> int:
        """Tokens of a text that a sample of `read` places has room for."""
        return read - PLACES_AROUND if self.wrapped else read

    @property
    def _decides(self) -> dict[str, JsonValue]:
        """What every kind adds to `decides`; nothing where it is as it was before there was the choice."""
        return {"filters": self.filters.given, **({"wrapped": True} if self.wrapped else {})}

    @property
    def knows_texts(self) -> bool:
        """See `SamplesSection`."""
        return True

    def problems(self, read: int) -> Iterator[str]:
        """See `SamplesSection`."""
        if read > LONGEST_SAMPLE:
            yield (
                f"data.samples: {self.name} has samples of up to {LONGEST_SAMPLE:,} tokens, these would read {read:,}; "
                "give a smaller data.sequence_length, or set data.samples to stream"
            )
        if self.room(read) < 1:
            yield (
                f"data.samples.wrapped leaves no room for text: a sample reads {read} tokens, and cls and sep are "
                f"{PLACES_AROUND} of them; set data.sequence_length to {PLACES_AROUND + 1} or more, or "
                "data.samples.wrapped to false"
            )


@SAMPLES.register
class WindowsConfig(FilteredSection):
    """Windows within documents, one a sample; filters look at each window.

    A window is a text of its own: of n tokens it has n - 1 that are predicted by those before them. With overlap 0
    every token is read once, and the first of each window is predicted nowhere. With a stride of `sequence_length`, one
    less than what a sample of next-token prediction reads, windows share one token, and each but the document's first
    is predicted once.
    """

    name: Literal["windows"] = Field(description="kind; it decides which keys there are")
    stride: int | None = Field(
        None, gt=0, description="tokens from the beginning of one window to that of the next in its document"
    )
    overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of a window that the next one reads again, to the nearest token; may be given in place of "
        "stride, and is 0 where neither is given",
    )
    balance_last: bool = Field(
        True, description="whether the last two windows of a document share their tokens evenly if the last is shorter"
    )

    @model_validator(mode="after")
    def _one_distance(self) -> "WindowsConfig":
        if self.stride is not None and self.overlap is not None:
            raise ValueError("stride and overlap say the same thing; give one of them")
        return self

    def stride_of(self, read: int) -> int:
        """Tokens from one window to the next where a window has at most `read`."""
        return self.stride if self.stride is not None else read - min(round((self.overlap or 0.0) * read), read - 1)

    def problems(self, read: int) -> Iterator[str]:
        """See `SamplesSection`."""
        yield from super().problems(read)
        if (room := self.room(read)) < 1:
            return
        if self.stride_of(room) > room:
            yield (
                f"data.samples.stride {self.stride} leaves tokens out between windows of {room}, what a sample has "
                f"room for; give at most {room}"
            )
        yield from self.filters.problems(room, "data.samples: windows")

    def decides(self, read: int) -> dict[str, JsonValue]:
        """See `SamplesSection`."""
        return {"stride": self.stride_of(self.room(read)), "balance_last": self.balance_last, **self._decides}


@SAMPLES.register
class PacksConfig(FilteredSection):
    """Several documents a sample, each whole if it is short enough; filters look at each document.

    Documents are fitted into samples by length, the longest first, each into the fullest sample that still takes it
    (best-fit decreasing). Samples all have as many places and steps as many samples, so that micro-batches are always
    full; padding is what is left within samples.
    """

    name: Literal["packs"] = Field(description="kind; it decides which keys there are")
    longer: Literal["cut", "drop"] = Field(
        "cut",
        description="what becomes of documents longer than a sample: cut into full samples and a rest, or dropped",
    )
    block_documents: int = Field(
        65536, gt=0, description="documents that are fitted into samples together; more of them leave less padding"
    )

    @property
    def holds_several(self) -> bool:
        """See `SamplesSection`."""
        return True

    def problems(self, read: int) -> Iterator[str]:
        """See `SamplesSection`."""
        yield from super().problems(read)
        if (room := self.room(read)) > 0:
            yield from self.filters.problems(room, "data.samples.longer: drop" if self.longer == "drop" else None)

    def decides(self, read: int) -> dict[str, JsonValue]:
        """See `SamplesSection`."""
        return {"longer": self.longer, "block_documents": self.block_documents, **self._decides}
