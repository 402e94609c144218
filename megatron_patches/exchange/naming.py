"""Which map of names a command line means."""

from pathlib import Path

from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.foreign import ForeignCheckpoint
from megatron_patches.models.interface.architecture import NameFormat
from megatron_patches.models.registry import all_architectures
from megatron_patches.parameters.name_map import NameMap, OwnNames, read_name_map
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved


def given_names(text: str) -> NameMap | None:
    """The map that a word or a YAML stands for; None for a program's, which depends on what is found.

    Raises:
        TrainyardError: it is none of these.
    """
    known = sorted({title for architecture in all_architectures() for title in architecture.formats()})
    if text in known:
        return None
    if text == "trainyard":
        return OwnNames(text, ())
    if not text.endswith((".yaml", ".yml")):
        choices = ", ".join([*known, "trainyard"])
        raise TrainyardError(f"--names {text}: choose {choices}, or the path of a YAML that maps names")
    return read_name_map(Path(text))


def found_names(config: RunConfig, text: str, foreign: ForeignCheckpoint, folder: Path) -> NameMap:
    """A program's names as a checkpoint has them.

    Raises:
        TrainyardError: the settings that were saved in it are another model's, or the program has no such models.
    """
    names = _format(config, text)
    found = names.setting_differences(config.model, foreign.settings)
    if found:
        raise TrainyardError(f"{folder} is another model's: {'; '.join(found)}. Change the run's model")
    return names.names_found([tensor.name for tensor in foreign.tensors], config.model, foreign.settings)


def names_for_export(text: str, checkpoint: Path) -> NameMap:
    """The same for writing."""
    names = given_names(text)
    if names is not None:
        return names
    config = load_resolved(checkpoint / CONFIG)
    return _format(config, text).names_to_write(config.model)


def _format(config: RunConfig, text: str) -> NameFormat:
    formats = config.architecture.formats()
    if text not in formats:
        raise TrainyardError(
            f"--names {text}: nothing is known there of models of {config.name}'s kind; write a YAML of names for "
            "--names"
        )
    return formats[text]
