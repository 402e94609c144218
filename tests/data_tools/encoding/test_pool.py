"""Worker processes: whatever happens to them, nothing hangs, nothing stays."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.encoding import block_encoder
from data_tools.encoding.libraries import Gigatoken
from data_tools.encoding.pool import AHEAD, EncodingPool
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block
from data_tools.text.document_encoding import SpacedIds
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Damaged, TrainyardError
from tests.data_tools.encoding.conftest import cut, lines

pytestmark = pytest.mark.slow  # workers are processes


class Reacting:
    """A `TextEncoder` that does what a text says."""

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], list[Any]]:
        for text in texts:
            if text == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "exit":
                os._exit(3)
            if text == "sleep":
                time.sleep(60)
            if text == "nap":
                time.sleep(0.3)
            if text == "damaged":
                raise Damaged("this one is damaged; copy it again")
            if text == "odd":
                raise Unpicklable(lambda: None)
        return tokenizer.encode_batch(texts), [len(text) for text in texts]


class Unpicklable(Exception):
    pass


def reacting(folder: Path) -> Recipe:
    return Recipe(folder, encoder=Reacting(), library="tokenizers")


def children() -> set[str]:
    """Processes that this one has started, dead ones that nobody waited for included."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize(("does", "said"), [("kill", "was killed by SIGKILL, most often"), ("exit", "exit code 3")])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_dies(tokenizer_folder: Path, does: str, said: str, workers: int) -> None:
    started, came, before = time.monotonic(), 0, children()
    with pytest.raises(TrainyardError, match=said), EncodingPool(reacting(tokenizer_folder), workers) as pool:
        for _ in pool.encode(lines(["a"] * 20 + [does] * (number == 30), 1) for number in range(500)):
            came += 1
    assert came <= 30
    assert time.monotonic() - started < 20
    assert children() == before  # those of other tests' libraries


def test_one_killed_from_outside_while_all_wait(tokenizer_folder: Path) -> None:
    with pytest.raises(TrainyardError, match="SIGKILL"), EncodingPool(reacting(tokenizer_folder), 2) as pool:
        results = pool.encode([lines(["a"]), lines(["sleep"])])
        next(results)
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        os.kill(pool._workers[1].pid, signal.SIGKILL)
        next(results)


def test_exceptions_come_back_as_themselves_and_in_their_turn(tokenizer_folder: Path) -> None:
    blocks = [lines(["nap"]), lines(["damaged"]), lines(["c"])]
    with EncodingPool(reacting(tokenizer_folder), 2) as pool:
        results = pool.encode(blocks)
        assert next(results)[1].texts[0].notes == [[3]]
        with pytest.raises(Damaged, match="copy it again") as raised:
            next(results)
        assert "in encode" in raised.value.__notes__[0]
        with pytest.raises(RuntimeError, match="Unpicklable"):
            list(pool.encode([lines(["odd"])]))
        assert len(list(pool.encode(cut(["a"] * 50, 1)))) == 50  # the pool goes on


def test_a_call_that_was_left_leaves_nothing_to_the_next(tokenizer_folder: Path) -> None:
    reference = load_tokenizer(tokenizer_folder)
    with EncodingPool(Recipe(tokenizer_folder), 2) as pool:
        for left_after in (0, 1, 5):
            results = pool.encode(cut(["left"] * 100, 1))
            for _ in range(left_after):
                next(results)
            results.close()  # type: ignore[attr-defined]
        ids = [encoded.texts[0].tokens.tolist() for _, encoded in pool.encode(cut(["b", "c", "d"], 1))]
    assert ids == reference.encode_batch(["b", "c", "d"])


def test_blocks_are_read_as_they_are_needed(tokenizer_folder: Path) -> None:
    read = 0

    def blocks() -> Iterator[Block]:
        nonlocal read
        for read in range(1, 300):
            yield lines([str(read)])

    with EncodingPool(Recipe(tokenizer_folder), 2) as pool:
        for number, _ in enumerate(pool.encode(blocks()), start=1):
            assert number <= read <= number + 2 * AHEAD


def test_blocks_of_all_sizes_at_once(tokenizer_folder: Path) -> None:
    drawn = random.Random(7)
    texts = ["ab c" * drawn.choice([0, 1, 100, 10_000, 600_000]) for _ in range(40)]
    with EncodingPool(Recipe(tokenizer_folder), 3) as pool:
        lengths = [encoded.texts[0].lengths.tolist() for _, encoded in pool.encode(cut(texts, 2))]
        assert sum(os.fstat(slot._file).st_size for slot in pool._slots) < len(pool._slots) * (9 << 20)
    reference = load_tokenizer(tokenizer_folder)
    short, shorter = (len(reference.encode("ab c" * times)) for times in (200, 100))
    known = {len(text): len(text) // 400 * (short - shorter) for text in texts if len(text) > 400}
    known |= {len(text): len(reference.encode(text)) for text in set(texts) if len(text) <= 400}
    assert [each for block in lengths for each in block] == [known[len(text)] for text in texts if text]


def test_a_source_that_fails_gives_what_it_gave_before(tokenizer_folder: Path) -> None:
    def blocks() -> Iterator[Block]:
        yield from cut(["a"] * 30, 1)
        raise Damaged("the rest is missing")

    came = 0
    with EncodingPool(Recipe(tokenizer_folder), 2) as pool, pytest.raises(Damaged, match="the rest"):
        for _ in pool.encode(blocks()):
            came += 1
    assert came == 30


def test_arrays_may_be_changed(tokenizer_folder: Path) -> None:
    with EncodingPool(Recipe(tokenizer_folder), 1) as pool:
        ((_, encoded),) = pool.encode([lines(["abc"])])
    encoded.texts[0].tokens[:] = 0
    assert encoded.texts[0].tokens.dtype == np.uint16


def test_a_library_whose_memory_grows_is_built_again(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    monkeypatch.setattr(block_encoder, "resident_bytes", lambda: 10**12)
    rebuilt = Gigatoken.rebuilt
    monkeypatch.setattr(Gigatoken, "rebuilt", lambda self: built.append(1) or rebuilt(self))
    encoder = EncodingPool(Recipe(tokenizer_folder), 1)._encoder
    monkeypatch.setattr(encoder, "_most_memory", 0)
    expected = load_tokenizer(tokenizer_folder).encode("some text")
    for _ in range(40):
        assert encoder.encode(lines(["some text"]), False).texts[0].tokens.tolist() == expected
    assert len(built) == 1  # what does not go away is not tried again until more has come
    monkeypatch.setattr(block_encoder, "resident_bytes", lambda: 2 * 10**12)
    for _ in range(16):
        encoder.encode(lines(["some text"]), False)
    assert len(built) == 2


def test_gigatoken_joins_short_texts_alone(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("_joined", "_each"):
        method = getattr(Gigatoken, name)

        def noted(self: Gigatoken, texts: Sequence[str], method: Any = method, name: str = name) -> SpacedIds:
            calls.append(name)
            return method(self, texts)

        monkeypatch.setattr(Gigatoken, name, noted)
    encoder = EncodingPool(Recipe(tokenizer_folder), 1)._encoder
    calls.clear()
    for texts in (["short"] * 300, ["long" * 500] * 300, ["one"]):
        encoder.encode(lines(texts, 1_000_000), False)
    assert calls == ["_joined", "_each", "_each"]


def test_processes_are_none(tokenizer_folder: Path) -> None:
    with pytest.raises(TrainyardError, match="at least one process"):
        EncodingPool(Recipe(tokenizer_folder), 0)
    with pytest.raises(TrainyardError, match="--max-length 1 or more"):
        Recipe(tokenizer_folder, max_length=0)


PARENT = """
    import signal, sys, time
    from pathlib import Path
    from data_tools.encoding.pool import EncodingPool
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from tests.data_tools.encoding.test_pool import lines, reacting
    with EncodingPool(reacting(Path(sys.argv[1])), 3) as pool:
        print(*(worker.pid for worker in pool._workers), flush=True)
        try:
            list(pool.encode([lines(["sleep"])] * 5))
        except KeyboardInterrupt:
            raise SystemExit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tokenizer_folder: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tokenizer_folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 3
    time.sleep(0.1)
    os.killpg(parent.pid, number) if number == signal.SIGINT else os.kill(parent.pid, number)
    parent.wait(20)
    assert parent.returncode == (130 if number == signal.SIGINT else -number)
    end = time.monotonic() + 10
    while any(map(_lives, workers)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(_lives, workers))


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
