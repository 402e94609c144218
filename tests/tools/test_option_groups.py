"""Options declared once, as the fields of a dataclass, and taken by several commands."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tools.option_groups import takes_groups


@dataclass(frozen=True)
class Speed:
    """A group, one option of which must be given."""

    line: Annotated[str, typer.Option("--over", help="Which line.")]
    tries: Annotated[int, typer.Option(min=1, help="Of each request.")] = 5


@dataclass(frozen=True)
class CarefulSpeed(Speed):
    """Another group with the same options and one more."""

    compare: Annotated[bool, typer.Option("--compare")] = False


app = typer.Typer(rich_markup_mode=None)


@app.command()
@takes_groups
def send(name: Annotated[str, typer.Argument()], speed: CarefulSpeed, loud: bool = False) -> None:
    """Sends."""
    print(name, speed, loud)


@app.command()
@takes_groups
def fetch(speed: Speed) -> None:
    """Fetches."""
    print(speed)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["fetch", "--over", "wire"], Speed("wire")),
        (["fetch", "--over", "wire", "--tries", "2"], Speed("wire", 2)),
        (["send", "x", "--over", "air", "--compare", "--loud"], f"x {CarefulSpeed('air', 5, True)} True"),
        (["send", "x", "--over", "air"], f"x {CarefulSpeed('air')} False"),
    ],
)
def test_a_command_gets_its_groups_filled(arguments: list[str], printed: object) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout.strip()) == (0, str(printed))


@pytest.mark.parametrize("arguments", [["fetch"], ["fetch", "--over", "wire", "--tries", "0"], ["send", "--over", "a"]])
def test_what_a_group_asks_for_is_checked(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_help_shows_options_where_the_group_stands() -> None:
    shown = CliRunner().invoke(app, ["send", "--help"]).stdout
    positions = [shown.index(option) for option in ("--over", "--tries", "--compare", "--loud")]
    assert positions == sorted(positions)
