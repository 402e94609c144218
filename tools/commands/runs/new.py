"""A new run from the template in train/."""

import os
import shlex
from pathlib import Path

from megatron_patches.configuration.yaml_text import dump_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.run.reading import load_run
from tools.pages.train_table import table_in_readme, write_table
from tools.run_files.catalogue import describe_line, run_files
from tools.run_files.name import RUN_PATTERN, RunName, family_number, order, parse_run_name
from tools.run_files.sbatch_options import SAME_FOR_ALL
from tools.run_files.slurm_script import OF_THE_SITE, parse_script

TEMPLATE = "arch-and-scaling-template"
UNWRITTEN = "(to be written)"


def create_run(name: str, base: Path, why: str, checkout: Path) -> list[Path]:
    """Writes a run's YAML and script, its family's README if the family is new, and its line in the table of runs.

    Returns:
        The new files.

    Raises:
        TrainyardError: the name is not formed as names are, the run exists, the base does not load, or no reason is
            given. Nothing was written then.
    """
    parsed = parse_run_name(name)
    if parsed is None:
        raise TrainyardError(f"{name} is not the name of a run; they are {RUN_PATTERN}")
    if not why.strip() or "\n" in why:
        raise TrainyardError("--why takes one line that says what the run is for")
    taken = [path for path in run_files(checkout) if path.stem == name]
    if taken:
        raise TrainyardError(f"{taken[0].relative_to(checkout)} exists; a run's name is used once, take another letter")
    load_run(base)

    family = _family_folder(parsed, checkout)
    values = {"name": name, "family": family.name, "why": _one_line(why), "base": _relative(base, family)}
    files = {family / f"{name}{suffix}": _fill(suffix, values, checkout) for suffix in (".yaml", ".slurm")}
    script = family / f"{name}.slurm"
    if base.with_suffix(".slurm").is_file():
        files[script] = _with_options_of(base.with_suffix(".slurm"), files[script], checkout)
    if not family.exists():
        files[family / "README.md"] = _fill(".md", values, checkout)
    readme = checkout / "train" / "README.md"
    table_in_readme(readme)
    lines = [describe_line(path) for path in run_files(checkout)]
    _write_new(files)
    script.chmod(0o755)
    new = describe_line(family / f"{name}.yaml")
    write_table(readme, sorted([*lines, new], key=lambda line: (order(Path(line.family)), order(Path(line.run)))))
    return sorted(files)


def _family_folder(name: RunName, checkout: Path) -> Path:
    train = checkout / "train"
    existing = [path for path in sorted(train.iterdir()) if path.is_dir() and family_number(path.name) == name.number]
    return existing[0] if existing else train / name.family


def _one_line(text: str) -> str:
    """Text as a YAML scalar, quoted where it would be taken for something else."""
    dumped = dump_yaml(text.strip(), width=10_000)
    return dumped.removesuffix("...\n").strip()


def _relative(base: Path, family: Path) -> str:
    return os.path.relpath(base.resolve(), family.resolve())


def _fill(suffix: str, values: dict[str, str], checkout: Path) -> str:
    text = (checkout / "train" / f"{TEMPLATE}{suffix}").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def _with_options_of(base_script: Path, text: str, checkout: Path) -> str:
    """A script that asks SLURM for what the base's asks for: nodes, time, and whatever else is not the same for all."""
    ending = (checkout / "slurm" / "script_ending.sh").read_text(encoding="utf-8")
    base = parse_script(base_script.read_text(encoding="utf-8"), ending).options
    own = {option: value for option, value in base.items() if option not in SAME_FOR_ALL | OF_THE_SITE}
    options = {**parse_script(text, ending).options, **own}
    asked = [f"#SBATCH --{option}" + (f"={shlex.quote(value)}" if value else "") for option, value in options.items()]
    shebang, *lines = text.splitlines()
    rest = [line for line in lines if not line.startswith("#SBATCH")]
    return "\n".join([shebang, *asked, *rest]) + "\n"


def _write_new(files: dict[Path, str]) -> None:
    """All files or none."""
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise TrainyardError(f"{error.filename}: cannot be written ({error.strerror}); nothing was kept") from error
