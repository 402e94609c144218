"""The store of a location, by its scheme: `storage/SCHEME.py` defines the kind as `STORE`."""

import importlib
import importlib.util

from megatron_patches.artefacts.location import SCHEMES, Location, fill_in
from megatron_patches.artefacts.storage.retrying import DEFAULT_RETRIES, Retries, RetryingStore
from megatron_patches.artefacts.storage.store import Store
from megatron_patches.errors import TrainyardError


def store_class(scheme: str) -> type[Store]:
    """The kind of storage that a scheme of `SCHEMES` names, or `hf_bucket`.

    Raises:
        KeyError: there is no such scheme.
    """
    if scheme not in (*SCHEMES, "hf_bucket"):
        raise KeyError(scheme)
    kind: type[Store] = importlib.import_module(f"megatron_patches.artefacts.storage.{scheme}").STORE
    return kind


def open_store(location: Location, retries: Retries = DEFAULT_RETRIES) -> RetryingStore:
    """The storage of a location; its client is imported now, and variables in the address get their values.

    Raises:
        TrainyardError: the client is not installed, or refuses its settings; a variable is not set.
    """
    location = fill_in(location)
    kind = store_class(
        "hf_bucket" if location.path.startswith("buckets/") and location.scheme == "hf" else location.scheme
    )
    if kind.package is not None and importlib.util.find_spec(kind.package) is None:
        raise TrainyardError(
            f"{location}: {location.scheme}:// needs {kind.package}, which the extra `storage` brings: "
            "pip install -c constraints.txt -e .[storage]"
        )
    return RetryingStore(kind(location), retries)
