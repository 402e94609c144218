"""Names of items, by which two results are compared item by item. Torch-free."""

import hashlib
from collections.abc import Iterable, Iterator

_LENGTH = 16


def item_ids(contents: Iterable[str]) -> Iterator[str]:
    """The beginning of the sha256 of each item's content; of equal ones each has its own, by their order."""
    seen: dict[str, int] = {}
    for content in contents:
        whole = hashlib.sha256(content.encode()).hexdigest()[:_LENGTH]
        seen[whole] = seen.get(whole, 0) + 1
        yield whole + (f"-{seen[whole]}" if seen[whole] > 1 else "")
