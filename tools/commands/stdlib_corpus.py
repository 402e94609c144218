"""`tools/stdlib-corpus`: the text that every machine has, the Python standard library's sources and documentation.

The documentation is the language reference that `help()` shows (pydoc_data); the sources hold the library's own.
"""

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import typer

from megatron_patches.sizes import counted
from tools.command_line import run_app

app = typer.Typer(add_completion=False)

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


@app.command()
def main(output: Path = typer.Option(help="File to write, .jsonl.")) -> None:
    """Collect the sources and the documentation of this Python's standard library, one JSON line a document."""
    documents = write_stdlib_corpus(output)
    print(f"{output}: {counted(documents, 'document')}, {output.stat().st_size / 1e6:.1f} MB")


def write_stdlib_corpus(path: Path) -> int:
    """Write one JSON line a document, `{"text", "source"}`; the number of documents.

    Documents are ordered by the hash of their names, so that a split by file order is a random one, and the same on
    every machine with the same Python.
    """
    from megatron_patches.atomic_files import write_atomically

    documents = sorted(stdlib_documents(), key=lambda document: hashlib.sha256(document[0].encode()).digest())
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "source": name}, ensure_ascii=False) for name, text in documents]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return len(documents)


def stdlib_documents() -> Iterator[tuple[str, str]]:
    """(name, text) of every source file, tests left out, and of every topic of `help()`."""
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


if __name__ == "__main__":
    run_app(app, "stdlib-corpus")
