"""What makes hundreds of small plans quick."""

import os
from collections.abc import Iterator
from functools import cache

import pytest

from megatron_patches.artefacts import manifest


@pytest.fixture(scope="package", autouse=True)
def quick() -> Iterator[None]:
    """Git is asked once, and the disk is not waited for: no test here cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "known_revision", cache(manifest.known_revision))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
