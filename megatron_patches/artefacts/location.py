"""Locations that hold copies, by their addresses: `file:///folder`, `s3://bucket/prefix` and others.

An address is one line of plain text: no credentials, query or fragment, nothing written with percent signs, no `..`.
`${NAME}` and `${NAME:-default}` stand for variables. They stay as they are wherever the address is shown or recorded,
and get their values when the location is opened.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.credentials import holds_credentials
from megatron_patches.foreign.printable import printable, shortened

SCHEMES = {
    "file": "file:///folder",
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "hf": "hf://org/repo",
}
"""How an address of each kind of storage looks; `storage/SCHEME.py` holds the kind itself."""
RUN = "{run}"
"""in an address it stands for the run's name; without it the name is added at the end"""
HUB_TYPES = {"models": "model", "datasets": "dataset", "buckets": "bucket"}
"""first part of an hf:// address, and what the hub calls that type; without one it is a repository of models"""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^${}]*))?\}")
_RUN = re.compile(r"(?<!\$)\{run\}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_NO_BRANCH = re.compile(r"\.\.|\.lock$|^HEAD$|[{}$]")
"""what git does not take (git-check-ref-format), and what would be filled in"""
_HUB_TYPE_WORD = re.compile(r"(?i)(model|dataset|space|bucket|kernel)s?")


@dataclass(frozen=True)
class Location:
    """An address taken apart."""

    scheme: str
    """empty where a variable begins the address"""
    path: str
    """without a / at its end: a folder, or bucket and prefix, or organisation, repository and folder"""
    written: str = ""
    """the address with its variables, where they have their values in `path`: only this is shown"""

    def __str__(self) -> str:
        return self.written or (f"{self.scheme}://{self.path}" if self.scheme else self.path)

    def beneath(self, name: str) -> "Location":
        """A folder or file in it."""
        return replace(self, path=f"{self.path}/{name}", written=self.written and f"{self.written}/{name}")


def parse_location(text: str) -> Location:
    """An address, checked for its form alone. What is refused because of credentials is never quoted.

    Raises:
        TrainyardError: the scheme is unknown, a part is missing or has no place in an address, or it holds credentials.
    """
    return _parse(text, shortened(text.strip()))


def run_location(text: str, run: str) -> Location:
    """Where a run's copies lie at an address: in a folder of its name, or where the address says {run}.

    Raises:
        TrainyardError: it is no address.
    """
    named = _RUN.sub(lambda _: run, text)
    location = parse_location(named)
    return location.beneath(run) if named == text else location


def revision_location(text: str, revision: str, run: str | None = None) -> Location:
    """The root of a revision of the hub's repository at an address.

    Args:
        run: what {run} in the address stands for; None where that is not known.

    Raises:
        TrainyardError: it is no address of a repository, names a folder in one or a revision of its own, or the
            revision has a name that a branch here cannot have.
    """
    location = parse_location(text if run is None else _RUN.sub(lambda _: run, text))
    parts = location.path.split("/")
    shown = f"{location} --revision {shortened(revision)}"
    if location.scheme != "hf" or parts[0] == "buckets":
        raise TrainyardError(f"{shown}: only repositories of the hub have revisions: hf://org/repo")
    if run is None and _RUN.search(str(location)):
        raise TrainyardError(f"{shown}: write the repository's name in place of {RUN}")
    if len(parts) > (3 if parts[0] in HUB_TYPES else 2) or "@" in location.path:
        raise TrainyardError(f"{shown}: name the repository alone, hf://org/repo: files lie at the revision's root")
    if "/" in revision:
        raise TrainyardError(f"{shown}: a revision with slashes is not understood; name a branch without")
    if _NO_BRANCH.search(revision):
        raise TrainyardError(f"{shown}: no branch has such a name; take letters, digits and single - _ .")
    return parse_location(f"{location}@{revision}")


def fill_in(location: Location, environment: Mapping[str, str] = os.environ) -> Location:
    """The location with its variables' values in its path; it is shown as it was written.

    Raises:
        TrainyardError: a variable is not set, or the values make no address of it; they are never quoted.
    """
    text = str(location)
    variables = list(_VARIABLE.finditer(text))
    if not variables:
        return location
    if missing := [each[1] for each in variables if each[2] is None and not environment.get(each[1])]:
        raise TrainyardError(f"{text}: the variable {missing[0]} is not set; export {missing[0]}=...")
    filled = _VARIABLE.sub(lambda each: environment.get(each[1]) or each[2] or "", text)
    names = ", ".join(dict.fromkeys(each[1] for each in variables))
    shown = f"{text} (with the value of {names} filled in)"
    if "$" in filled or "{" in filled:
        raise TrainyardError(f"{shown} still holds a variable or a brace; give {names} a plain value")
    return replace(_parse(filled, shown), written=text)


def _parse(text: str, shown: str) -> Location:
    given = text.strip()
    plain = _VARIABLE.sub(lambda each: each[2] or "x", given)
    if holds_credentials(plain) or holds_credentials(_VARIABLE.sub("x", given)):
        raise TrainyardError(_refuse_credentials(text, shown))
    _check_characters(given, plain, shown)
    if given.startswith("${") and "://" not in plain:
        return Location("", given.rstrip("/"))  # the variable's value brings the scheme; `fill_in` looks at it
    found = _ADDRESS.fullmatch(plain)
    if found is None:
        *others, last = SCHEMES.values()
        raise TrainyardError(f"{shown} is not an address: {', '.join(others)} or {last}")
    scheme, rest = found[1].lower(), found[2]
    if scheme not in SCHEMES:
        raise TrainyardError(f"{shown}: there is no storage {scheme}://; there are {', '.join(SCHEMES)}")
    if given.startswith("${"):
        return Location("", given.rstrip("/"))
    path = given[given.index("://") + 3 :]
    if scheme == "file":
        return Location(scheme, _folder(path, rest, shown))
    parts = rest.replace(RUN, "x").rstrip("/").split("/")
    if "" in parts[1:] or "." in parts:
        raise TrainyardError(f"{shown}: a part of it is empty or a dot, which a bucket keeps as a name; leave it out")
    path = path.rstrip("/")
    if scheme == "hf":
        _check_hub(parts, shown)
        return Location(scheme, path.removeprefix("models/"))
    if not _BUCKET.fullmatch(parts[0]):
        raise TrainyardError(f"{shown}: name a bucket behind {scheme}:// (letters, digits, dots, hyphens)")
    return Location(scheme, path)


def _refuse_credentials(text: str, shown: str) -> str:
    found = _ADDRESS.match(text.strip())
    told = shown if shown != shortened(text.strip()) else f"{found[1].lower()}://..." if found else "an address"
    return (
        f"{told}: an address holds no credentials, and this one is not shown because it seems to; the clients find "
        "them in their own places, and `tools/sync-to-hub auth` says where"
    )


def _check_characters(given: str, plain: str, shown: str) -> None:
    """Refuses what would be taken for something else: by a client, by a server, or by a reader."""
    if printable(given) != given:
        raise TrainyardError(f"{shown}: an address is one line without control characters")
    if "$" in _VARIABLE.sub("", given):
        raise TrainyardError(f"{shown}: of variables only ${{NAME}} and ${{NAME:-default}} are understood")
    if "{" in plain.replace(RUN, "") or "}" in plain.replace(RUN, ""):
        raise TrainyardError(f"{shown}: of braces only {RUN} and ${{NAME}} are understood")
    if mark := next((mark for mark in "?#\\" if mark in plain), None):
        raise TrainyardError(f"{shown}: {mark} has no place in it: an address has no query, fragment or backslash")
    if re.search("%[0-9A-Fa-f]{2}", plain):
        raise TrainyardError(f"{shown}: nothing is written with percent signs here; write each character as it is")
    parts = plain.partition("://")[2].split("/")
    if ".." in parts or any(part != part.strip() for part in parts):
        raise TrainyardError(
            f"{shown}: .. and spaces around a name have no place in an address; write the folder itself"
        )


def _folder(path: str, plain: str, shown: str) -> str:
    """The folder that a file:// address names (RFC 8089): on this machine, from the root."""
    if path.lower().startswith("localhost/"):
        path, plain = path[len("localhost") :], plain[len("localhost") :]
    if path.startswith("${"):
        plain = f"/{plain.lstrip('/')}"  # its value is looked at when the location is opened
    host, _, rest = plain.partition("/")
    if host.startswith("~") or rest.startswith("~"):
        raise TrainyardError(f"{shown}: ~ is not understood in an address; write the folder, or file://${{HOME}}/...")
    if host:
        raise TrainyardError(
            f"{shown} names a machine, where a folder of this one must stand: it begins with three slashes, "
            f"{SCHEMES['file']}"
        )
    kept = (
        path.rstrip("/") if "${" in path else "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    )
    if kept in ("", "/"):
        raise TrainyardError(f"{shown}: name a folder: {SCHEMES['file']}")
    return kept


def _check_hub(parts: list[str], shown: str) -> None:
    """Refuses what the hub would refuse, or would take for another repository."""
    word = parts[0]
    if _HUB_TYPE_WORD.fullmatch(word):
        if word not in HUB_TYPES:  # a Space is a program that each commit would rebuild
            known = ", ".join(f"hf://{each}/" for each in HUB_TYPES)
            raise TrainyardError(f"{shown}: hf://{word.lower()}/ is no place for copies; there are {known}")
        parts = parts[1:]
    beginning = f"hf://{word}/" if word in HUB_TYPES else "hf://"
    if len(parts) < 2 or not parts[0] or not parts[1]:
        what = "bucket" if word == "buckets" else "repository"
        raise TrainyardError(f"{shown}: give {beginning}organisation/{what}")
    name, at, revision = parts[1].partition("@")
    if at and word == "buckets":
        raise TrainyardError(f"{shown}: a bucket has no revisions; leave @ and what follows out")
    names = [parts[0], name, *([revision] if at else [])]
    if any(not _HUB_NAME.fullmatch(each) or "--" in each or each.endswith((".git", ".")) for each in names):
        raise TrainyardError(f"{shown}: the hub's names have letters, digits, single - _ . and at most 96 of them")
    if revision == "refs":  # refs/pr/1: its parts would be taken for a folder of a branch `refs`
        raise TrainyardError(f"{shown}: a revision with slashes is not understood; name a branch, a tag or a commit")
    if any("@" in part for part in parts[2:]):
        raise TrainyardError(
            f"{shown}: the revision follows the repository's name: {beginning}org/repo@revision/folder"
        )
