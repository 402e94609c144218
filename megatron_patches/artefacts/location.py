"""Locations that hold copies, by their addresses: `file:///folder`, `s3://bucket/prefix` and others."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_patches.errors import TrainyardError

SCHEMES = {
    "file": "file:///folder",
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "hf": "hf://org/repo",
}
"""How an address of each kind of storage looks; `storage/SCHEME.py` holds the kind itself."""
RUN = "{run}"
"""in an address it stands for the run's name; without it the name is added at the end"""
_ADDRESS = re.compile(r"([a-z0-9]+)://(.*)")


@dataclass(frozen=True)
class Location:
    """An address taken apart."""

    scheme: str
    path: str
    """without a / at its end: a folder, or bucket and prefix, or organisation, repository and folder"""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def beneath(self, name: str) -> "Location":
        """A folder or file in it."""
        return replace(self, path=f"{self.path}/{name}")


def parse_location(text: str) -> Location:
    """An address, checked for its form alone.

    Raises:
        TrainyardError: the scheme is unknown, a part is missing, or it holds a name and password.
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None:
        *others, last = SCHEMES.values()
        raise TrainyardError(f"{text} is not an address: {', '.join(others)} or {last}")
    scheme, path = found[1], found[2].rstrip("/")
    if scheme not in SCHEMES:
        raise TrainyardError(f"{text}: there is no storage {scheme}://; there are {', '.join(SCHEMES)}")
    if scheme != "file" and "@" in path.split("/", 1)[0]:
        host = path.split("@", 1)[1]
        raise TrainyardError(
            f"{scheme}://...@{host}: an address holds no credentials; the clients find them in their own places, and "
            "`tools/sync-to-hub auth` says where"
        )
    if scheme == "file" and not path.startswith("/"):
        path = str(Path(path or ".").absolute())
    if not path or (scheme == "hf" and len(path.split("/")) < 2):
        raise TrainyardError(f"{text}: {'give hf://organisation/repository' if scheme == 'hf' else 'name a bucket'}")
    return Location(scheme, path)


def run_location(text: str, run: str) -> Location:
    """Where a run's copies lie at an address: in a folder of its name, or where the address says {run}.

    Raises:
        TrainyardError: it is no address.
    """
    named = text.replace(RUN, run)
    location = parse_location(named)
    return location if RUN in text else location.beneath(run)
