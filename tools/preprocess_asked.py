"""What the command line of `tools/preprocess` says, before a run's YAML has said the rest."""

from dataclasses import dataclass
from pathlib import Path

from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class Asked:
    """What a run may say in place of the command line."""

    inputs: tuple[str, ...]
    output: Path | None
    tokenizer: Path | None
    json_keys: str | None
    append_eod: bool
    max_bad: int
    split: str | None
    revision: str | None
    streaming: bool

    def check_hub_options(self) -> None:
        """Raises TrainyardError where an option of hf: datasets would do nothing."""
        given = {"--split": self.split, "--revision": self.revision, "--no-streaming": not self.streaming}
        named = [option for option, value in given.items() if value]
        if named and not any(each.startswith("hf:") for each in self.inputs):
            raise TrainyardError(f"{' and '.join(named)}: only for inputs hf:NAME, and none is given; leave it out")

    def needed_output(self) -> Path:
        """Raises TrainyardError where there is none, or nothing is to be read."""
        if not self.inputs:
            raise TrainyardError("no input is named; give files, folders or hf:NAME, or --run with a source of text")
        if self.output is None:
            raise TrainyardError(
                "no --output is given; add --output PREFIX, or --run RUN where RUN reads a dataset (for raw "
                "text it names none)"
            )
        return self.output

    def needed_tokenizer(self) -> Path:
        """Raises TrainyardError where there is none."""
        if self.tokenizer is None:
            raise TrainyardError("no --tokenizer is given; add --tokenizer DIR, or --run RUN with the run that has it")
        return self.tokenizer
