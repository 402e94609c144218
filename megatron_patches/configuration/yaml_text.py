"""YAML as version 1.2 has it: `6e-4` is a number, only true and false are booleans, a key occurs once.

PyYAML follows version 1.1, where `6e-4` is text, `no` is false, `1:30` is ninety and a second key replaces the first.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import read_bounded

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z")
_BOOLEAN = re.compile(r"(?:true|false)\Z")
_NULL = re.compile(r"(?:null|~|)\Z")

_RESOLVERS = {
    "": [("tag:yaml.org,2002:null", _NULL)],
    **{first: [("tag:yaml.org,2002:null", _NULL)] for first in "n~"},
    **{first: [("tag:yaml.org,2002:bool", _BOOLEAN)] for first in "tf"},
    **{first: [("tag:yaml.org,2002:int", _INTEGER), ("tag:yaml.org,2002:float", _FLOAT)] for first in "-+.0123456789"},
}


class RunLoader(yaml.SafeLoader):
    """Reads a run's file."""

    yaml_implicit_resolvers = _RESOLVERS

    def construct_run_mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """A mapping whose keys are text and occur once.

        Raises:
            yaml.MarkedYAMLError: a key occurs twice, or is no text.
        """
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is not a name", problem_mark=key_node.start_mark)
            if key in mapping:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} occurs a second time; keep one", problem_mark=key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping

    def construct_run_integer(self, node: yaml.ScalarNode) -> int:
        """A decimal number; `010` is ten, not eight as in YAML 1.1."""
        return int(self.construct_scalar(node))

    def construct_run_float(self, node: yaml.ScalarNode) -> float:
        """A finite number.

        Raises:
            yaml.MarkedYAMLError: it is too large for a double.
        """
        value = float(self.construct_scalar(node))
        if not math.isfinite(value):
            raise yaml.MarkedYAMLError(problem=f"{node.value} is too large a number", problem_mark=node.start_mark)
        return value


RunLoader.add_constructor("tag:yaml.org,2002:map", RunLoader.construct_run_mapping)
RunLoader.add_constructor("tag:yaml.org,2002:int", RunLoader.construct_run_integer)
RunLoader.add_constructor("tag:yaml.org,2002:float", RunLoader.construct_run_float)


class RunDumper(yaml.SafeDumper):
    """Writes what `RunLoader` reads back unchanged: it quotes the text that the loader would take for a number."""

    yaml_implicit_resolvers = _RESOLVERS


def dump_yaml(value: Any, width: int = 120) -> str:
    """A value in YAML, keys in their order, that `parse_yaml` reads back unchanged.

    Unicode's own line separators would be read back as line breaks: where there is one, all but ASCII is escaped.
    """

    def dump(allow_unicode: bool) -> str:
        return yaml.dump(value, Dumper=RunDumper, sort_keys=False, allow_unicode=allow_unicode, width=width)

    text = dump(allow_unicode=True)
    return dump(allow_unicode=False) if any(separator in text for separator in "\x85\u2028\u2029") else text


def parse_yaml(text: str, origin: str) -> Any:
    """The value that a text in YAML stands for; `origin` says in an error where the text was found.

    Raises:
        TrainyardError: the text is not YAML, or a key occurs twice.
    """
    try:
        return yaml.load(text, Loader=RunLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TrainyardError(f"{origin}{position}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise TrainyardError(f"{origin}: not YAML: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        TrainyardError: the file is missing or unreadable, not YAML, or not a list of keys.
    """
    try:
        text = read_bounded(path).decode()
    except Missing:
        raise TrainyardError(f"{path}: no such file") from None
    except (TrainyardError, UnicodeDecodeError) as error:
        raise TrainyardError(f"{path}: cannot be read as text: {error}") from None
    settings = parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        raise TrainyardError(f"{path}: a run's file holds keys and values (`why: ...`), this one does not")
    return settings
