"""Which map of names a command line means."""

from pathlib import Path

from data_tools.errors import TrainyardError
from megatron_patches.config import load_resolved
from megatron_patches.exchange.foreign import ForeignCheckpoint
from megatron_patches.exchange.megatron_names import TITLE, bigscience_pipeline, megatron_map, setting_differences
from megatron_patches.exchange.name_map import NameMap, OwnNames, read_name_map
from megatron_patches.run_config import RunConfig


def given_names(text: str) -> NameMap | None:
    """The map that a word or a YAML stands for; None for Megatron's, which depend on what is found.

    Raises:
        TrainyardError: it is neither.
    """
    if text == TITLE:
        return None
    if text == "trainyard":
        return OwnNames(text, ())
    if not text.endswith((".yaml", ".yml")):
        raise TrainyardError(f"--names {text}: choose {TITLE}, trainyard, or the path of a YAML that maps names")
    return read_name_map(Path(text))


def found_names(config: RunConfig, foreign: ForeignCheckpoint, folder: Path) -> NameMap:
    """Megatron's names as a checkpoint has them.

    Raises:
        TrainyardError: the settings that were saved in it are another model's.
    """
    found = setting_differences(config.model, foreign.settings)
    if found:
        raise TrainyardError(f"{folder} is another model's: {'; '.join(found)}. Change the run's model")
    return megatron_map((tensor.name for tensor in foreign.tensors), config.model, foreign.settings)


def names_for_export(text: str, checkpoint: Path) -> NameMap:
    """The same for writing: Megatron's are those of BigScience's pipeline."""
    names = given_names(text)
    return bigscience_pipeline(load_resolved(checkpoint / "config.yaml").model) if names is None else names
