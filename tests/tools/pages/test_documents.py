"""What documents say of files and figures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from tools.pages.documents import DOCUMENTS, main, missing_files, read_figures, wrong_figures

FIGURE = "start: {value: 6.3 s, of: a start, command: make start, machine: two cores, date: 2026-11-28}\n"
CITED = 'It takes [6.3 s](benchmarks/figures.yaml "start").\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Makes a checkout with this README and these figures."""

    def write(readme: str = CITED, figures: str = FIGURE) -> Path:
        for name in (*DOCUMENTS, "benchmarks/figures.yaml"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("")
        (tmp_path / "README.md").write_text(readme)
        (tmp_path / "benchmarks/figures.yaml").write_text(figures.replace("2026-11-28", '"2026-11-28"'))
        return tmp_path

    return write


def test_ours_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("readme", "figures", "found"),
    [
        (CITED, FIGURE, []),
        (CITED.replace("6.3", "7.1"), FIGURE, [
            "README.md: start is said to be 7.1 s; benchmarks/figures.yaml has 6.3 s"
        ]),
        ("A start.", FIGURE, ["benchmarks/figures.yaml: no document cites start: remove it"]),
        (CITED.replace('"start"', '"stop"'), FIGURE, [
            "README.md: no figure stop in benchmarks/figures.yaml",
            "benchmarks/figures.yaml: no document cites start: remove it",
        ]),
        (CITED + "Or in 0.4 s.", FIGURE, [
            "README.md:2: 0.4 s has no record: put it into benchmarks/figures.yaml, and cite it by its name"
        ]),
        (CITED + "After 600 s, on 2.13.0 since", FIGURE, []),
    ],
)  # fmt: skip
def test_figures(readme: str, figures: str, found: list[str], write: Callable[..., Path]) -> None:
    assert list(wrong_figures(write(readme, figures))) == found


def test_a_record_says_what_when_and_how(write: Callable[..., Path]) -> None:
    with pytest.raises(TrainyardError, match="start: command"):
        read_figures(write(figures=FIGURE.replace("command: make start, ", "")))


def test_files_that_are_not_there(write: Callable[..., Path]) -> None:
    checkout = write("`tools/README.md`, `run/config.py`,\n`run/gone.py`, `config.py` and `nowhere.py`")
    (checkout / "megatron_patches/run").mkdir(parents=True)
    (checkout / "megatron_patches/run/config.py").touch()
    found = list(missing_files(checkout))
    assert found == ["README.md:2: there is no run/gone.py", "README.md:2: there is no nowhere.py"]
