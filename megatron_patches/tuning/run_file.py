"""The chosen layout in a run's YAML: only the lines that say it change. Torch-free."""

import re
from pathlib import Path
from typing import Any

from megatron_patches.atomic_files import write_atomically
from megatron_patches.run.reading import load_run
from megatron_patches.tuning.candidates import Candidate


def section_text(candidate: Candidate, uneven: bool) -> str:
    """What a YAML needs to say of it."""
    training = (
        f"training:\n  micro_batch_size: {candidate.micro_batch_size}\n  recomputation: {candidate.recomputation}"
    )
    parallel = {key.removeprefix("parallel."): value for key, value in candidate.keys().items() if "parallel." in key}
    if uneven:
        parallel["pipeline_partition"] = "transformer"
    return "\n".join([training, "parallel:", *(f"  {key}: {_yaml(value)}" for key, value in parallel.items())]) + "\n"


def write_layout(path: Path, candidate: Candidate) -> None:
    """Put a layout into a run's file, comments and other keys as they are; the run must load with it."""
    config = load_run(path)
    text = path.read_text(encoding="utf-8")
    wanted: dict[str, Any] = candidate.keys()
    if candidate.pipeline == 1 and config.parallel.pipeline_partition != "transformer":
        wanted |= {"parallel.pipeline_partition": "transformer"}
    for key, value in wanted.items():
        section, name = key.split(".")
        text = _with_key(text, section, name, _yaml(value))
    checked = path.with_suffix(".tuned.yaml")
    checked.write_text(text, encoding="utf-8")
    try:
        load_run(checked)
    finally:
        checked.unlink()
    write_atomically(path, text.encode())


def _with_key(text: str, section: str, name: str, value: str) -> str:
    """The text with one key of a section set."""
    block = re.search(rf"^{section}:[^\n]*\n((?:[ \t]+[^\n]*\n|[ \t]*\n)*)", text, re.MULTILINE)
    if block is None:
        return f"{text.rstrip()}\n{section}:\n  {name}: {value}\n"
    inside = block[1]
    line = re.compile(rf"^(\s+{name}:\s*)[^\s#][^#\n]*?(\s*(?:#[^\n]*)?)$", re.MULTILINE)
    if line.search(inside):
        changed = line.sub(lambda match: f"{match[1]}{value}{match[2]}", inside, count=1)
    else:
        changed = f"  {name}: {value}\n{inside}"
    return text[: block.start(1)] + changed + text[block.end(1) :]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
