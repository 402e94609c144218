"""`tools/dataset blend`: weights of a blend, from what its sources hold or from a file of ratios."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tools.commands.dataset.blend_sources import BlendSource
    from tools.commands.dataset.blend_tables import Blend

SOURCES = typer.Argument(
    metavar="SOURCE",
    help="A source of the blend: a dataset's prefix, a file of it (data/*.idx), or a pattern in quotes, 'data/en-*', "
    "whose datasets are one source together. NAME=PATH names it; otherwise its path does.",
)
ALPHA = typer.Option(
    None, help="Weights are shares of the tokens to this power, from 0 (equal) to 1 (as held), such as 0.3."
)
TEMPERATURE = typer.Option(None, help="The same with alpha = 1 / TEMPERATURE, from 1 up, such as 3.3.")
RATIOS = typer.Option(
    None,
    metavar="FILE",
    help='Weights from JSON: {"en": 0.7, "fr": 0.3}, or a list of objects with a ratio (or weight) and a dataset_path '
    "(or path, or name).",
)
EQUAL = typer.Option(False, "--equal", help="The same weight for each source.")
TOKENS = typer.Option(
    None, help="Tokens that the run reads, such as 350e9: also show tokens and epochs of each source."
)
MAX_EPOCHS = typer.Option(
    None,
    help="Read no source more often, such as 4; the others get what is left over, in proportion to their weights. "
    "Needs --tokens.",
)
SPLIT = typer.Option(
    "", help="Count only the training documents of this split in file order, such as 949,50,1; by default all."
)
AS_JSON = typer.Option(False, "--json", help="For other programs; numbers are exact.")
AS_YAML = typer.Option(False, "--yaml", help="The data section of a run's YAML, with these sources.")


def blend(
    sources: list[str] = SOURCES,
    alpha: float | None = ALPHA,
    temperature: float | None = TEMPERATURE,
    ratios: Path | None = RATIOS,
    equal: bool = EQUAL,
    tokens: float | None = TOKENS,
    max_epochs: float | None = MAX_EPOCHS,
    split: str = SPLIT,
    as_json: bool = AS_JSON,
    as_yaml: bool = AS_YAML,
) -> None:
    """Compute the weights of a blend of datasets: by size, by a file of ratios, or equal.

    Example: tools/dataset blend web='data/web-*' data/code data/books --alpha 0.3 --tokens 300e9

    Example: tools/dataset blend data/*.idx --ratios ratios.json --tokens 300e9 --max-epochs 4 --yaml
    """
    from data_tools.datasets.split import parse_split
    from data_tools.samples.proportions import MOST_EPOCHS
    from megatron_patches.errors import TrainyardError
    from tools.commands.dataset.blend_sources import blend_sources

    ways = {"--alpha": alpha, "--temperature": temperature, "--ratios": ratios, "--equal": equal or None}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) != 1:
        given = " and ".join(chosen) or "none"
        raise TrainyardError(f"weights come from one of {', '.join(ways)}, and here from {given}; give exactly one")
    if as_json and as_yaml:
        raise TrainyardError("--json and --yaml are two forms of one answer; give one of them")
    if tokens is not None and not 1 <= tokens <= 1e18:
        raise TrainyardError(f"--tokens {tokens:g} is not a number of tokens from 1 to 1e18")
    if max_epochs is not None and not 0 < max_epochs <= MOST_EPOCHS:
        raise TrainyardError(f"--max-epochs {max_epochs:g} is not above 0 and at most {MOST_EPOCHS:,.0f}")
    if max_epochs is not None and tokens is None:
        raise TrainyardError("--max-epochs needs --tokens: how many epochs a source is read depends on it")
    if split:
        parse_split(split)
    power = _power(alpha, temperature)

    found = blend_sources(sources, split)
    made = _blended(found, power, ratios, None if tokens is None else round(tokens), max_epochs)
    _show(made, split, as_json, as_yaml)


def _power(alpha: float | None, temperature: float | None) -> float:
    """The power of the tokens that is asked for, refused before any dataset is opened; 0 for --equal."""
    from data_tools.samples.proportions import alpha_of, powers

    power = alpha_of(temperature) if temperature is not None else 0.0 if alpha is None else alpha
    powers([1], power)
    return power


def _blended(
    sources: "list[BlendSource]", power: float, ratios: Path | None, tokens: int | None, most_epochs: float | None
) -> "Blend":
    from data_tools.samples.blend import whole_weights
    from data_tools.samples.proportions import powers, within_epochs
    from tools.commands.dataset.blend_sources import ratios_in
    from tools.commands.dataset.blend_tables import Blend

    names, held = [each.name for each in sources], [each.tokens for each in sources]
    asked = powers(held, power) if ratios is None else ratios_in(ratios, names)
    if tokens is None or most_epochs is None:
        whole = whole_weights(asked)
    else:
        whole = within_epochs(asked, names, held, tokens, most_epochs)
    return Blend(sources, asked, whole, tokens, most_epochs)


def _show(made: "Blend", split: str, as_json: bool, as_yaml: bool) -> None:
    from tools.commands.dataset.blend_tables import HEAD, HEAD_OF_READING, as_values, as_yaml_section, remarks, rows
    from tools.tables import print_table
    from tools.terminal import remark, tell_json

    if as_json:
        tell_json(as_values(made, split))
    elif as_yaml:
        print(as_yaml_section(made, split), end="")
    else:
        head = HEAD if made.tokens is None else [*HEAD, *HEAD_OF_READING]
        print_table(head, rows(made), numbers=range(1, len(head)))
    for each in remarks(made):
        remark(each)
