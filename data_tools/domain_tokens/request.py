"""What preprocessing is asked to do with arithmetic: tokens for products, and made-up documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_tools.domain_tokens.multiplication import Mode
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable

if TYPE_CHECKING:  # its patterns take 0.04 s, and few ask for it
    from data_tools.domain_tokens.injection import Injection


@dataclass(frozen=True)
class ArithmeticRequest:
    """Which expressions become tokens, and how many documents are made up; by default neither."""

    inject: Mode | None = None
    """Which expressions become tokens of the multiplication table."""
    synthetic_documents: int = 0
    """Made-up documents of multiplication facts, spread evenly over the others."""
    seed: int | None = None
    """What they follow from; 0 where it is not given."""

    @property
    def drawn_from(self) -> int:
        """The seed of the made-up documents."""
        return self.seed or 0

    def check(
        self,
        json_keys: Sequence[str],
        records: str | None,
        tokens: int | None,
        shard: str | None = None,
        shuffled: bool = False,
    ) -> None:
        """Raises TrainyardError if documents cannot be made up among those that are read.

        Args:
            records: `pairs` or `chat`, where these are read in place of texts.
            tokens: after how many reading stops; None: all is read.
            shard: which share of the sources is read, such as 3/8; None: all of them.
            shuffled: whether the seed is also that of an order.
        """
        if self.synthetic_documents < 0:
            raise TrainyardError(f"{self.synthetic_documents} made-up documents were asked for; give 0 or more")
        if self.seed is not None and not self.synthetic_documents and not shuffled:
            raise TrainyardError(
                f"--seed {self.seed} has no effect without --synthetic-arithmetic or --shuffle; leave it out"
            )
        if self.synthetic_documents and len(json_keys) != 1:
            raise TrainyardError(
                f"made-up documents have one text, and --json-keys asks for {len(json_keys)}; preprocess one key at a "
                "time, or leave out --synthetic-arithmetic"
            )
        if self.synthetic_documents and records is not None:
            raise TrainyardError(
                f"--synthetic-arithmetic makes up texts, which have no place among the records of --{records}; leave "
                "it out, or make a dataset of texts with it"
            )
        if self.synthetic_documents and shard is not None:
            raise TrainyardError(
                f"--synthetic-arithmetic spreads its documents over all that the sources have, and --shard {shard} "
                "reads a part of them; leave one of the two out"
            )
        if self.synthetic_documents and tokens is not None:
            raise TrainyardError(
                "--synthetic-arithmetic spreads its documents over all that the sources have, and --target-tokens "
                "(--tokens) stops before their end, so that fewer would be in than were asked for; leave out "
                "--target-tokens, and cut the dataset with tools/dataset split"
            )

    def injection(self, tokenizer: Tokenizer, templates: bool = False) -> "Injection | None":
        """What makes ids of texts; None leaves it to the tokenizer.

        Args:
            templates: whether the tokenizer's chat template writes control tokens into the texts.

        Raises:
            TrainyardError: the tokenizer has no tokens for it, or they would be taken for those of the template.
        """
        if self.inject is None:
            return None
        from data_tools.domain_tokens.injection import injection_with

        injection = injection_with(tokenizer, self.inject)
        control = set(tokenizer.control_tokens.values())
        if templates and (found := [token for token, number in injection.ids.items() if number in control]):
            raise TrainyardError(
                f"{found[0]} is a control token of tokenizer {printable(tokenizer.name)} (marked special), and would "
                "be taken for one that its chat template writes; make a tokenizer with tools/tokenizer extend, whose "
                "tokens are ordinary, or take --chat-template plain"
            )
        return injection

    def arguments(self) -> list[str]:
        """The words of a command line that ask for this."""
        words = [] if self.inject is None else ["--inject", self.inject]
        if self.synthetic_documents:
            words += ["--synthetic-arithmetic", str(self.synthetic_documents), "--seed", str(self.drawn_from)]
        return words
