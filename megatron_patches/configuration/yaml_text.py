"""YAML as version 1.2 has it: `6e-4` is a number, only true and false are booleans, a key occurs once.

PyYAML follows version 1.1, where `6e-4` is text, `no` is false, `1:30` is ninety and a second key replaces the first.
"""

import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.printable import printable, shortened

LARGEST = 1 << 18
"""bytes of a file, characters of a value; a resolved configuration has about 10 kB, and PyYAML takes up to 20 s for
these 256 kB, as one list of lists"""
MOST_NODES = 100_000
"""keys and values once aliases are written out; without a limit, 30 lines of aliases stand for 10^30 values"""
_LARGEST_INTEGER = (1 << 64) - 1

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

    def construct_run_mapping(self, node: yaml.Node) -> dict[str, Any]:
        """A mapping whose keys are text and occur once.

        Raises:
            yaml.MarkedYAMLError: a key occurs twice, or is no text.
        """
        mapping: dict[str, Any] = {}
        if not isinstance(node, yaml.MappingNode):
            raise _marked("expected keys and values", node)
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _marked(f"key {shortened(repr(key), 60)} is not a name", key_node)
            if key in mapping:
                raise _marked(f"key '{shortened(key, 60)}' occurs a second time; keep one", key_node)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping

    def construct_run_text(self, node: yaml.Node) -> str:
        """Text that can be written into a file; `"\\ud800"` is none."""
        text = self._scalar(node)
        if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
            raise _marked("a text holds half of a surrogate pair; remove it", node)
        return text

    def construct_run_integer(self, node: yaml.Node) -> int:
        """A decimal number; `010` is ten, not eight as in YAML 1.1."""
        text = self._scalar(node)
        # Python refuses to read more than 4,300 digits
        if not _INTEGER.match(text) or len(text) > 100 or abs(int(text)) > _LARGEST_INTEGER:
            raise _marked(f"{shortened(text, 60)} is too large a number, or none", node)
        return int(text)

    def construct_run_float(self, node: yaml.Node) -> float:
        """A finite number.

        Raises:
            yaml.MarkedYAMLError: it is too large for a double.
        """
        text = self._scalar(node)
        if not (_FLOAT.match(text) or _INTEGER.match(text)) or not math.isfinite(float(text)):
            raise _marked(f"{shortened(text, 60)} is too large a number, or none", node)
        return float(text)

    def construct_run_boolean(self, node: yaml.Node) -> bool:
        """`true` or `false`."""
        text = self._scalar(node)
        if not _BOOLEAN.match(text):
            raise _marked(f"{shortened(text, 60)} is neither true nor false", node)
        return text == "true"

    def _scalar(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _marked("expected one value, found a list or keys", node)
        return str(node.value)


def _marked(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


# PyYAML's own constructors of binary data, dates and sets are left out: no setting is one, and `!!timestamp 2024-99-99`
# raises what is no YAMLError.
RunLoader.yaml_constructors = {
    "tag:yaml.org,2002:null": yaml.SafeLoader.construct_yaml_null,
    "tag:yaml.org,2002:bool": RunLoader.construct_run_boolean,
    "tag:yaml.org,2002:int": RunLoader.construct_run_integer,
    "tag:yaml.org,2002:float": RunLoader.construct_run_float,
    "tag:yaml.org,2002:str": RunLoader.construct_run_text,
    "tag:yaml.org,2002:seq": partial(yaml.SafeLoader.construct_sequence, deep=True),
    "tag:yaml.org,2002:map": RunLoader.construct_run_mapping,
    None: yaml.SafeLoader.construct_undefined,
}


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
        TrainyardError: the text is not YAML, a key occurs twice, or it stands for more than can be.
    """
    if len(text) > LARGEST:
        raise TrainyardError(f"{origin}: {len(text):,} characters; at most {LARGEST:,} of YAML are read")
    try:
        loader = RunLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TrainyardError(f"{origin}{position}: {_problem(error)}") from None
    except RecursionError:
        raise TrainyardError(f"{origin}: nested too deeply to be read") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the scanner calls chr() with what "\U00110000" says
        raise TrainyardError(f"{origin}: not YAML: {shortened(error)}") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    return printable(": ".join(part for part in (error.context, error.problem) if part))


def _count_nodes(node: yaml.Node, counted: dict[int, int]) -> int:
    """Keys and values that a node stands for, those of its aliases included; 0 is a node that is not done yet."""
    known = counted.get(id(node))
    if known == 0:
        raise _marked("an alias stands for what it is part of; write it out", node)
    if known is None:
        counted[id(node)] = 0
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = [] if isinstance(node, yaml.ScalarNode) else inner
        known = counted[id(node)] = 1 + sum(_count_nodes(part, counted) for part in parts)
        if known > MOST_NODES:
            raise _marked(f"aliases stand for more than {MOST_NODES:,} keys and values; write out what is meant", node)
    return known


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        TrainyardError: the file is missing, unreadable or too large, not YAML, or not a list of keys.
    """
    shown = printable(path)
    try:
        text = read_bounded(path, LARGEST).decode("utf-8-sig")
    except Missing:
        raise Missing(f"{shown}: no such file") from None
    except UnicodeDecodeError as error:
        raise Damaged(f"{shown}: cannot be read as text: {error.reason} at byte {error.start:,}") from None
    settings = parse_yaml(text, shown)
    if not isinstance(settings, dict):
        raise TrainyardError(f"{shown}: a run's file holds keys and values (`why: ...`), this one does not")
    return settings
