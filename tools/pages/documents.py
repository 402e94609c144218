"""Whether the documents keep to the facts: files that they name exist, figures are those of their record.

`python -m tools.pages.documents`, a part of `make lint`. A measured figure stands once, in benchmarks/figures.yaml,
with its machine, date and command; a document cites it as a link whose title is the figure's name:

    made anew in [35.5 s](../benchmarks/figures.yaml "catalogue-rebuild")
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from megatron_patches.checkout import CHECKOUT
from megatron_patches.configuration.section import Section
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError

DOCUMENTS = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "checkpoints.md"),
    *("data_tools/README.md", "tools/README.md", "slurm/README.md", "train/README.md", "train/tflops_optimization.md"),
    "train/evaluation.md",
)
FIGURES = Path("benchmarks/figures.yaml")
_DRAWN = {"train/tflops_optimization.md", "checkpoints.md"}
"""pages whose tables are drawn from records of their own"""

_PATH = re.compile(r"`([\w./-]+\.(?:py|md|sh|slurm))`")
_CITED = re.compile(r"\[([^\]]+)\]\((?:\.\./)*benchmarks/figures\.yaml\s+\"([\w-]+)\"\)")
_MEASURED = re.compile(r"(?<![\w.])\d+\.\d+ (?:s|ms|GB/s|MB/s)\b")


class Figure(Section):
    """One measured number."""

    value: str = Field(description="as documents say it, with its unit")
    of: str = Field(description="what was measured")
    command: str = Field(description="what measures it again")
    machine: str = Field(description="hardware, and the versions that matter")
    date: str = Field(description="YYYY-MM-DD")


def read_figures(checkout: Path) -> dict[str, Figure]:
    """The record of figures, by name.

    Raises:
        TrainyardError: it is missing, no YAML, or an entry lacks something.
    """
    path = checkout / FIGURES
    figures = {}
    for name, entry in read_yaml(path).items():
        try:
            figures[name] = Figure.model_validate(entry)
        except ValidationError as error:
            wrong = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
            raise TrainyardError(f"{path}: {name}: {wrong or 'no list of keys'}: see the class Figure") from None
    return figures


def wrong_figures(checkout: Path) -> Iterator[str]:
    """Figures that differ from their record, are not in it, or are in it for nobody; measurements without a record."""
    figures, cited = read_figures(checkout), set()
    for document in DOCUMENTS:
        text = (checkout / document).read_text(encoding="utf-8")
        for match in _CITED.finditer(text):
            value, name = " ".join(match[1].split()), match[2]  # a line may end within it
            cited.add(name)
            if name not in figures:
                yield f"{document}: no figure {name} in {FIGURES}"
            elif figures[name].value != value:
                yield f"{document}: {name} is said to be {value}; {FIGURES} has {figures[name].value}"
        if document not in _DRAWN:
            for number, line in enumerate(_CITED.sub(lambda match: "\n" * match[0].count("\n"), text).splitlines(), 1):
                for figure in _MEASURED.findall(line):
                    yield f"{document}:{number}: {figure} has no record: put it into {FIGURES}, and cite it by its name"
    for name in sorted(figures.keys() - cited):
        yield f"{FIGURES}: no document cites {name}: remove it"


def missing_files(checkout: Path) -> Iterator[str]:
    """Files that a document names and that are not there; a path counts from the checkout, or from the engine."""
    for document in DOCUMENTS:
        beside = (checkout / document).parent
        for number, line in enumerate((checkout / document).read_text(encoding="utf-8").splitlines(), start=1):
            for name in _PATH.findall(line):
                roots = (checkout, checkout / "megatron_patches", beside)
                known = any((root / name).exists() for root in roots)
                if not known and ("/" in name or not _somewhere(checkout, name)):
                    yield f"{document}:{number}: there is no {name}"


def _somewhere(checkout: Path, name: str) -> bool:
    """Whether a file of this name lies in a folder of ours, for names that follow a path of their folder."""
    folders = ("megatron_patches", "data_tools", "tools", "slurm", "tests", "train")
    return any(next((checkout / folder).rglob(name), None) for folder in folders)


def main(checkout: Path = CHECKOUT) -> int:
    """The command line: a line on stderr for each fault, and exit code 1 where there is one."""
    found = [*missing_files(checkout), *wrong_figures(checkout)]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
