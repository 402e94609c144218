"""The text that every machine has: the Python standard library's sources and its documentation.

The documentation is the language reference that `help()` shows (pydoc_data); the sources hold the library's own.
"""

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


def write_stdlib_corpus(path: Path) -> int:
    """Write one JSON line a document, `{"text", "source"}`; the number of documents.

    Documents are ordered by the hash of their names, so that a split by file order is a random one, and the same on
    every machine with the same Python.
    """
    documents = sorted(_documents(), key=lambda document: hashlib.sha256(document[0].encode()).digest())
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "source": name}, ensure_ascii=False) for name, text in documents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(documents)


def _documents() -> Iterator[tuple[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if not LEFT_OUT.intersection(relative.parts) and relative.parts[0] != "pydoc_data":
            text = path.read_text(encoding="utf-8", errors="replace")
            if text.strip():
                yield relative.as_posix(), text
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"help/{name}", text
