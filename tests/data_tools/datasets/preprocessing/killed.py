"""A process that preprocesses in forks of itself and kills them: `python -m ....killed FOLDER TOKENIZER KILLS SEED`.

Every kind of request is made once without a kill, and once with kills at random ones of the instants at which
something is put on the disk: before or after the call. What the second one leaves must be what the first one left.
"""

import gzip
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_tools.datasets.preprocessing import read_documents, shuffling, work_folder
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.reading.files import lines_part, rows_part
from data_tools.records.record import RecordForm
from megatron_patches.artefacts.manifest import read_manifest

PAIRS = RecordForm("pairs", ("text", "title"), None, " ")
WORDS = ("dog", "fox", "over", "the", "hill", "number", "street", "bridge", "sea", "crow", "3*4")


def write_sources(folder: Path) -> dict[str, list[Path | str]]:
    """A few hundred documents in files of every kind."""
    draw = random.Random(1)
    entries = [
        {
            "text": " ".join(draw.choices(WORDS, k=draw.randrange(60))) if number % 17 else "",
            "title": f"title {number}",
        }
        for number in range(90)
    ]
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (folder / "a.jsonl").write_text("".join(lines[:60]))
    (folder / "b.jsonl").write_text("".join(lines[60:]))
    halves = ("".join(each).encode() for each in (lines[:45], lines[45:]))
    (folder / "c.jsonl.gz").write_bytes(b"".join(map(gzip.compress, halves)))
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(entries), folder / "d.parquet", row_group_size=30)
    return {
        "lines": [folder / "a.jsonl", folder / "b.jsonl"],
        "gz": [folder / "c.jsonl.gz"],
        "parquet": [folder / "d.parquet"],
    }


def requests(folder: Path, tokenizer: Path) -> dict[str, PreprocessRequest]:
    """One of every kind."""
    sources = write_sources(folder)

    def ask(name: str, kind: str, **settings: Any) -> PreprocessRequest:
        settings = {"append_eod": True, "workers": 2, **settings}
        return PreprocessRequest(sources[kind], folder / "out" / name, tokenizer, **settings)

    return {
        "lines": ask("lines", "lines"),
        "gz": ask("gz", "gz", tokens=700),
        "parquet": ask("parquet", "parquet", max_length=20),
        "shards": ask("shards", "lines", shard_tokens=300),
        "shuffled": ask("shuffled", "lines", shuffle_seed=3, arithmetic=ArithmeticRequest(None, 9, 3)),
        "pairs": ask("pairs", "parquet", records=PAIRS, append_eod=False, shuffle_seed=1),
        "everything": ask("everything", "lines", json_keys=("text", "title"), shuffle_seed=3, shard_tokens=400),
    }


def made(folder: Path) -> dict[str, Any]:
    """All files of a folder; of manifests what does not tell when they were made."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(".manifest.json"):
            manifest = read_manifest(path)
            proof = None if manifest.by.proof is None else dict(manifest.by.proof)
            found[path.name] = (manifest.id, manifest.by.command, proof)
        else:
            found[path.name] = path.read_bytes() if path.is_file() else "folder"
    return found


def make_small_steps() -> None:
    """So that little text makes many blocks, batches and buckets, and the journal is written after each."""
    work_folder.SECONDS, work_folder.SHARE = 0.0, float("inf")
    lines_part.BLOCK_BYTES = rows_part.BLOCK_BYTES = 3000
    read_documents.BATCH_TOKENS, read_documents.DOCUMENTS_AT_ONCE = 400, 50
    shuffling.BUCKET_BYTES = 1500


def count_instants(at: Callable[[int], None]) -> None:
    """Calls `at` with a number before and after each call that puts something on the disk."""
    instants = 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal instants
            instants += 1
            at(instants)
            result = function(*arguments, **options)
            instants += 1
            at(instants)
            return result

        return call

    for name in ("write", "pwrite", "fsync", "ftruncate"):
        setattr(os, name, watched(getattr(os, name)))
    for name in ("replace", "unlink"):
        setattr(Path, name, watched(getattr(Path, name)))


def in_a_fork(request: PreprocessRequest, kill_at: int | None, told: Path) -> bool:
    """Whether it ended by itself; the number of its instants is written to a file then."""
    pid = os.fork()
    if pid == 0:
        own = os.getpid()

        def at(instant: int) -> None:
            nonlocal last
            if os.getpid() == own:  # workers are forks too
                last = instant
                if instant == kill_at:
                    os.kill(own, signal.SIGKILL)

        last = 0
        code = 1
        try:
            count_instants(at)
            preprocess(request)
            kill_at = None
            told.write_text(str(last))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "preprocessing failed, see above"
        return True
    return False


def main() -> None:
    """Prints one line for each kind of request."""
    folder, tokenizer, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    draw = random.Random(seed)
    make_small_steps()
    told = folder / "instants"
    for name, request in requests(folder, tokenizer).items():
        assert in_a_fork(request, None, told)
        instants = int(told.read_text())
        expected = made(folder / "out")
        for path in (folder / "out").iterdir():
            path.unlink()
        killed = 0
        again = replace(request, workers=1)
        while killed < kills:
            # early enough that what is left suffices for the others
            if in_a_fork(again, draw.randrange(1, max(3, instants * 3 // (kills + 2))), told):
                break
            killed += 1
        ended = bool(killed < kills) or in_a_fork(again, None, told)
        found = made(folder / "out")
        assert ended and found.keys() == expected.keys(), (name, sorted(found), sorted(expected))
        assert found == expected, (name, [each for each in found if found[each] != expected[each]])
        for path in (folder / "out").iterdir():
            path.unlink()
        print(f"{name}: {instants} instants, {killed} kills, the same", flush=True)


if __name__ == "__main__":
    main()
