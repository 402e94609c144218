"""Datasets of a hub on loopback, which cuts, stalls and refuses."""

import gzip
import io
import json
import multiprocessing
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from tests.data_tools.reading.hugging_face_worker import Told, begin, offline, opened, read, without_network
from tests.servers.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.servers.hub import TOKEN, Hub, hub_server

COMMIT = f"{7:040x}"
LONG = [f"{number} " + random.Random(number).randbytes(10_000).hex() for number in range(300)]
"""6 MB: the library fetches 5 MB at a time"""
SHORT = [f"text {number} 🚂 é" for number in range(500)]


def lines(texts: list[str], key: str = "text") -> bytes:
    return "".join(json.dumps({key: text, "n": number}) + "\n" for number, text in enumerate(texts)).encode()


def parquet(texts: list[str], rows: int) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"n": list(range(len(texts))), "text": texts})
    pyarrow.parquet.write_table(table, sink, row_group_size=rows, compression="none")
    return sink.getvalue()


FAULTS = {
    "half": "was cut", "short": "bytes; trying", "cut": "was cut", "stall": "no answer from 127.0.0.1 within 0.4 s",
    "503": "answered 503", "429": "answered 429",
}  # fmt: skip
"""and what is said of each"""
CARD = "---\nconfigs:\n- config_name: {}\n  data_files: a.jsonl\n- config_name: {}\n  data_files: b.jsonl\n---\n"
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "long": {"train-0.jsonl": lines(LONG)},
    "columns": {"train-0.parquet": parquet(LONG, 50), "train-1.parquet": parquet(SHORT, 100)},
    "packed": {"train-0.jsonl.gz": gzip.compress(lines(LONG), 1), "train-1.jsonl.gz": gzip.compress(lines(SHORT))},
    "cut-off": {"train-0.jsonl": lines(SHORT), "train-1.jsonl.gz": gzip.compress(lines(LONG), 1)[:-100_000]},
    "splits": {
        "train-0.jsonl": lines(SHORT),
        "train-1.jsonl": lines(SHORT[:9]),
        "test-0.jsonl": lines(["a"]),
    },
    "whole": {"train-0.jsonl": lines(SHORT)},
    "lacking": {f"train-{n}.jsonl": lines(SHORT, "words" if n == 9 else "text") for n in range(10)},
    "configured": {"README.md": CARD.format("one", "two").encode(), "a.jsonl": lines(["a"]), "b.jsonl": lines(["b"])},
    "script": {"script.py": b"raise SystemExit('it ran')", "train-0.jsonl": lines(SHORT)},
    "empty": {"notes.md": b"nothing"},
}


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[FaultProxy, Hub]]:
    with hub_server() as (address, hub), fault_proxy(address) as proxy:
        hub.commits = 7
        for name, files in REPOSITORIES.items():
            hub.files[f"datasets~me/{name}"], hub.large[f"datasets~me/{name}"] = dict(files), set()
        yield proxy, hub


@pytest.fixture(scope="module")
def process(hub: tuple[FaultProxy, Hub], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPoolExecutor]:
    home = tmp_path_factory.mktemp("home")
    environment = {"HF_ENDPOINT": hub[0].address, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, begin, (environment,)) as pool:
        yield pool


@pytest.fixture
def ask(process: ProcessPoolExecutor, hub: tuple[FaultProxy, Hub]) -> Iterator[Callable[..., Told]]:
    """Calls a function of the worker."""
    hub[0].requests.clear()
    yield lambda function, *given, **options: process.submit(function, *given, **options).result(60)
    hub[0].waiting.clear()
    hub[0].met.clear()


@pytest.fixture
def proxy(hub: tuple[FaultProxy, Hub]) -> FaultProxy:
    return hub[0]


def texts_of(told: Told) -> list[str]:
    assert told.error is None, told.error
    return [text for texts, _ in told.value[0] for text in texts]


@pytest.mark.parametrize("name", ["long", "columns", "packed"])
def test_all_texts_come_in_order_from_any_row_on(ask: Callable[..., Told], name: str) -> None:
    at = f"hf:me/{name}"
    told = ask(opened, at)
    assert told.error is None and told.stderr == ""
    dataset, names = told.value
    assert dataset.identity == {
        "name": f"me/{name}", "configuration": None, "split": "train", "columns": ["text"], "revision": COMMIT,
    }  # fmt: skip
    assert names == [f"me/{name}/train/{file}" for file in sorted(REPOSITORIES[name])]
    whole = ask(read, at, 0, hashed=True)
    assert texts_of(whole) == LONG
    assert all(sum(map(len, texts)) < 1.1e6 for texts, _ in whole.value[0])
    for row in (whole.value[0][2][1]["row"], 123, 300):
        behind = ask(read, at, 0, row, hashed=row == 123)
        assert texts_of(behind) == LONG[row:]
        assert row != 123 or behind.value[1] == whole.value[1]
    if len(names) > 1:
        assert texts_of(ask(read, at, 1)) == SHORT


@pytest.mark.parametrize("name", ["long", "columns", "packed"])
def test_what_goes_wrong_in_mid_file_is_asked_for_again(ask: Callable[..., Told], proxy: FaultProxy, name: str) -> None:
    at = f"hf:me/{name}"
    ask(opened, at, timeout_seconds=0.4, retries=len(FAULTS))
    before = len(proxy.requests)
    whole = ask(read, at, 0)
    usual = len(proxy.requests) - before
    assert name != "columns" or usual > 1
    # what comes first passes, where there is more than one request
    proxy.inject(*[Fault("slow", path="train-0")] * (usual > 1), *(Fault(fault, path="train-0") for fault in FAULTS))
    told = ask(read, at, 0)
    assert told.value == whole.value
    assert texts_of(told) == LONG
    assert proxy.met[-len(FAULTS) :] == list(FAULTS)
    assert len(proxy.requests) - before == 2 * usual + len(FAULTS)
    notes = told.stderr.splitlines()
    assert len(notes) == len(FAULTS)
    for note, (said, number) in zip(notes, zip(FAULTS.values(), range(1, 7), strict=True), strict=True):
        assert said in note and f"trying again in {0.005 * 2**number:g} s ({number} of 6)" in note


def test_what_stays_wrong_ends_in_an_error(ask: Callable[..., Told], proxy: FaultProxy) -> None:
    ask(opened, "hf:me/long", retries=2)
    proxy.inject(*[Fault("500", path="train-0")] * 3)
    told = ask(read, "hf:me/long", 0)
    assert proxy.met == ["500"] * 3
    assert told.stderr.splitlines() == [
        f"note: 127.0.0.1 answered 500 (Internal Server Error); trying again in {pause} s ({number} of 2)"
        for number, pause in ((1, 0.01), (2, 0.02))
    ]
    assert str(told.error).startswith("hf:me/long, train, shard 1 of 1 (train-0.jsonl): 127.0.0.1 answered 500")
    assert "3 times" in str(told.error)
    assert texts_of(ask(read, "hf:me/long", 0, 299)) == LONG[299:]


def test_a_hub_that_fails_while_a_dataset_is_looked_up(ask: Callable[..., Told], proxy: FaultProxy) -> None:
    proxy.inject(*[Fault("503")] * 3)
    assert ask(opened, "hf:me/splits").error is None
    assert proxy.met == ["503"] * 3
    proxy.inject(*[Fault("503", path="/tree/")] * 2)
    told = ask(opened, "hf:me/packed", retries=1, revision=COMMIT)
    assert type(told.error) is TrainyardError and "answered 503" in str(told.error)


def test_a_split_is_copied_and_then_read_without_requests(ask: Callable[..., Told], proxy: FaultProxy) -> None:
    at = "hf:me/splits"
    streamed, copied = ask(opened, at), ask(opened, at, streaming=False)
    assert copied.value == streamed.value
    assert copied.value[0].splits == ("train", "test")
    proxy.requests.clear()
    assert texts_of(ask(read, at, 0)) == SHORT
    assert texts_of(ask(read, at, 1)) == SHORT[:9]
    assert proxy.requests == []
    told = ask(offline, at)
    assert "hf download me/splits" in str(told.error) and "test-0.jsonl" in str(told.error)
    assert proxy.requests == []


def test_a_whole_copy_is_read_offline(ask: Callable[..., Told], proxy: FaultProxy) -> None:
    copied = ask(opened, "hf:me/whole", streaming=False)
    proxy.requests.clear()
    told = ask(offline, "hf:me/whole")
    assert told.error is None and told.value[0] == copied.value
    assert [text for texts, _ in told.value[1][0] for text in texts] == SHORT
    assert proxy.requests == []


def test_a_copy_that_is_cut_goes_on(ask: Callable[..., Told], proxy: FaultProxy) -> None:
    proxy.inject(Fault("half", "GET", "resolve"), Fault("half", "GET", "resolve"))
    assert ask(opened, "hf:me/long", streaming=False).error is None
    assert proxy.met == ["half"] * 2
    assert texts_of(ask(read, "hf:me/long", 0)) == LONG


def test_without_a_network_it_says_so_at_once(ask: Callable[..., Told]) -> None:
    told = ask(without_network, "hf:me/long")
    assert type(told.error) is TrainyardError and told.stderr == ""
    for part in ("hf:me/long cannot be had without a network", "`hf download me/long --repo-type dataset`", "HF_HOME",
                 "HF_HUB_OFFLINE=1"):  # fmt: skip
        assert part in str(told.error)
    told = ask(offline, "hf:me/columns")
    assert "hf download me/columns" in str(told.error)


@pytest.mark.parametrize(
    ("text", "options", "kind", "parts"),
    [
        ("hf:me/unknown", {}, Missing, ["hf:me/unknown is not there", "404"]),
        ("hf:me/long", {"revision": "v9"}, Missing, ["hf:me/long is not there", "revision"]),
        ("hf:me/splits", {"split": "dev"}, Missing, ["no split 'dev', only train, test"]),
        ("hf:me/splits", {"columns": ["words"]}, Missing, ["hf:me/splits, train has no column 'words', only text, n"]),
        ("hf:me/configured", {}, Missing, ["['one', 'two']", "#CONFIGURATION"]),
        ("hf:me/configured#three", {}, Missing, ["three", "['one', 'two']"]),
        ("hf:me/script", {}, Refused, ["hf:me/script is a program", "never run"]),
        ("hf:me/empty", {}, Missing, ["hf:me/empty"]),
    ],
)
def test_what_is_not_there_is_told_and_not_asked_for_twice(
    ask: Callable[..., Told], proxy: FaultProxy, text: str, options: dict[str, Any], kind: type, parts: list[str]
) -> None:
    told = ask(opened, text, **options)
    assert type(told.error) is kind, told
    assert all(part in str(told.error) for part in parts), told.error
    assert told.stderr == ""
    requests = [each for each in proxy.requests if "tree" in each or "api/datasets" in each]
    assert len(requests) < 6


def test_a_configuration_is_chosen_by_name(ask: Callable[..., Told]) -> None:
    told = ask(opened, "hf:me/configured#two")
    assert told.value[0].identity["configuration"] == "two"
    assert texts_of(ask(read, "hf:me/configured#two", 0)) == ["b"]


def test_a_token_that_is_refused(ask: Callable[..., Told], proxy: FaultProxy) -> None:
    proxy.inject(Fault("401"))
    told = ask(opened, "hf:me/long")
    assert type(told.error) is Missing and "not open to you" in str(told.error) and proxy.met == ["401"]


def test_a_column_that_is_missing_in_the_tenth_shard(ask: Callable[..., Told]) -> None:
    ask(opened, "hf:me/lacking")
    assert texts_of(ask(read, "hf:me/lacking", 8)) == SHORT
    error = ask(read, "hf:me/lacking", 9).error
    assert str(error) == (
        "hf:me/lacking, train, shard 10 of 10 (train-9.jsonl) has no column 'text', only words, n; "
        "name a column that all shards have, or give the files that have it without hf:"
    )


def test_a_compressed_file_that_is_cut_off_is_no_end(ask: Callable[..., Told]) -> None:
    ask(opened, "hf:me/cut-off")
    error = ask(read, "hf:me/cut-off", 1).error
    assert type(error) is Damaged and "train-1.jsonl.gz" in str(error) and "EOFError" in str(error)
