"""S3, Google's storage and the hub through their real clients, over sockets, with faults on the line."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from megatron_patches.artefacts.location import parse_location
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.storage import object_store
from megatron_patches.artefacts.storage.fetch import fetch_artefact
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.retrying import Retries, RetryingStore
from megatron_patches.artefacts.storage.s3 import S3Store
from megatron_patches.artefacts.storage.store import (
    AccessRefused,
    NotThere,
    StorageUnavailable,
    Store,
    TransientFailure,
)
from megatron_patches.artefacts.storage.transfer import Options, check_artefact, send_artefact
from megatron_patches.errors import TrainyardError
from tests.servers.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.servers.gcs import gcs_server
from tests.servers.hub import TOKEN, hub_server
from tests.servers.s3 import s3_server
from tests.small_artefacts import make_artefact, make_checkpoint

PREFIX = "checkpoints/step-0000000100"
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_TOKEN": TOKEN,
    "HF_HUB_DISABLE_XET": "1",  # the server here speaks the hub's older protocol alone
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True)
class Remote:
    """One kind of storage with a proxy in front."""

    scheme: str
    proxy: FaultProxy
    base: str

    def store(self, name: str) -> Store:
        """A fresh prefix at it."""
        return open_store(parse_location(f"{self.base}/{name}"), Retries(tries=4, pause=0.01))


def impatient(module: ModuleType) -> SimpleNamespace:
    """A module as it is, but for its `sleep`, which waits a hundredth of a second at most."""
    return SimpleNamespace(**{**vars(module), "sleep": lambda seconds: module.sleep(min(seconds, 0.01))})


@pytest.fixture(scope="module")
def remotes() -> Iterator[dict[str, Remote]]:
    """All three, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        with (
            s3_server() as s3, fault_proxy(s3) as s3_proxy, gcs_server() as (gs, _), fault_proxy(gs) as gs_proxy,
            hub_server() as (hub, _), fault_proxy(hub) as hub_proxy,
        ):  # fmt: skip
            patch.setenv("AWS_ENDPOINT_URL", s3_proxy.address)
            patch.setenv("STORAGE_EMULATOR_HOST", gs_proxy.address)
            patch.setenv("HF_ENDPOINT", hub_proxy.address)
            import gcsfs.retry
            from aiobotocore import endpoint
            from huggingface_hub import constants
            from huggingface_hub.utils import _http

            # the clients' own pauses between tries are seconds
            patch.setattr(gcsfs.retry, "min", lambda *_: 0.01, raising=False)
            patch.setattr(_http, "time", impatient(time))
            patch.setattr(endpoint, "asyncio", impatient(asyncio))
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            yield {
                "s3": Remote("s3", s3_proxy, "s3://yard"),
                "gs": Remote("gs", gs_proxy, "gs://yard"),
                "hf": Remote("hf", hub_proxy, "hf://tester/runs"),
            }


@pytest.fixture(params=["s3", "gs", "hf"])
def remote(request: pytest.FixtureRequest, remotes: dict[str, Remote]) -> Iterator[Remote]:
    found = remotes[request.param]
    found.proxy.waiting.clear()
    found.proxy.met.clear()
    yield found
    found.proxy.waiting.clear()


def options(**more: object) -> Options:
    return Options(meter=Meter(), **more)  # type: ignore[arg-type]


def test_there_and_back(remote: Remote, tmp_path: Path, manifest: Manifest, folder: Path) -> None:
    store = remote.store("back")
    assert send_artefact(store, PREFIX, manifest, folder, options()).files == 6
    bodies = remote.proxy.bodies
    assert send_artefact(remote.store("back"), PREFIX, manifest, folder, options()).result == "present"
    assert remote.proxy.bodies == bodies
    assert check_artefact(store, PREFIX, manifest.id) == []
    fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options())
    for file in manifest.files:
        assert (tmp_path / "back" / file.path).read_bytes() == (folder / file.path).read_bytes()
    store.delete(f"{PREFIX}/config.yaml")
    store.delete(f"{PREFIX}/config.yaml")  # what is gone already is no error
    assert len(check_artefact(store, PREFIX, manifest.id)) == 1


SENDS = {"s3": ("PUT", "safetensors"), "gs": ("POST", "upload_id"), "hf": ("PUT", "/objects/")}


@pytest.mark.parametrize("kind", ["cut", "500", "503", "slow", "corrupt"])
def test_faults_while_sending(remote: Remote, kind: str, tmp_path: Path) -> None:
    manifest = make_checkpoint(tmp_path / "runs", 100, run=kind)  # content that the hub does not hold yet
    folder = tmp_path / "runs" / kind / PREFIX
    store = remote.store(f"send-{kind}")
    method, path = SENDS[remote.scheme]
    body = b"<Error><Code>SlowDown</Code></Error>"
    remote.proxy.inject(Fault(kind, method, path, body), Fault(kind, method, path, body))
    try:
        send_artefact(store, PREFIX, manifest, folder, options())
    except TrainyardError:
        assert store.read(f"{PREFIX}/manifest.json") is None
        send_artefact(store, PREFIX, manifest, folder, options())  # the same command again goes on
    assert remote.proxy.met == [kind, kind]
    assert check_artefact(store, PREFIX, manifest.id) == []


@pytest.mark.parametrize("kind", ["cut", "half", "500"])
def test_faults_while_fetching(remote: Remote, kind: str, tmp_path: Path, manifest: Manifest, folder: Path) -> None:
    store = remote.store("fetch")
    send_artefact(store, PREFIX, manifest, folder, options())
    path = "resolve" if remote.scheme == "hf" else "weights-0"
    remote.proxy.inject(Fault(kind, "GET", path), Fault(kind, "GET", path))
    try:
        fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options())
    except TrainyardError:
        assert not (tmp_path / "back").exists()
        fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options())
    assert remote.proxy.met
    for file in manifest.files:
        assert (tmp_path / "back" / file.path).read_bytes() == (folder / file.path).read_bytes()


REFUSALS = {
    "s3": ("400", b"<Error><Code>ExpiredToken</Code><Message>a-secret-of-tests</Message></Error>", "expired"),
    "gs": ("401", b'{"error": {"code": 401, "message": "expired"}}', "expired"),
    "hf": ("401", b'{"error": "expired"}', "expired"),
}


def test_an_expired_token_is_named_with_its_remedy_and_not_tried_again(
    remote: Remote, manifest: Manifest, folder: Path
) -> None:
    status, body, said = REFUSALS[remote.scheme]
    store = remote.store("refusing")
    method = "POST" if remote.scheme == "hf" else ""
    remote.proxy.inject(*[Fault(status, method, "", body) for _ in range(40)])
    with pytest.raises(AccessRefused, match=said) as caught:
        send_artefact(store, PREFIX, manifest, folder, options(parallel=1))
    assert "a-secret-of-tests" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert len(remote.proxy.met) < 20
    remote.proxy.waiting.clear()
    assert store.read(f"{PREFIX}/manifest.json") is None


def test_a_large_object_goes_in_parts_and_is_compared(
    remotes: dict[str, Remote], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 8 << 20  # like the real one, a multiple of what is read at once
    monkeypatch.setattr(object_store, "PART", part)
    monkeypatch.setattr("megatron_patches.artefacts.storage.s3.PART", part)
    folder = tmp_path / "large"
    content = random.Random(0).randbytes(part + 1000)
    files = {"weights-00000.safetensors": content, "weights-00001.safetensors": content[::-1], "config.yaml": b"{}"}
    manifest = make_artefact(folder, "checkpoint", files, {"step": 100})
    for scheme in ("s3", "gs"):
        remote = remotes[scheme]
        remote.proxy.requests.clear()
        store = remote.store("large")
        send_artefact(store, PREFIX, manifest, folder, options())
        parts = [each for each in remote.proxy.requests if "partNumber" in each or "upload_id" in each]
        assert len(parts) >= 4
        assert not [each for each in remote.proxy.requests if each.startswith("GET") and "weights-0" in each and
                    "alt=media" in each], "the server's own hash was enough"  # fmt: skip
        assert check_artefact(store, PREFIX, manifest.id) == []


def test_where_credentials_come_from(remote: Remote) -> None:
    said = remote.store("credentials").credentials()
    assert {"s3": "environment variables", "gs": "STORAGE_EMULATOR_HOST", "hf": "HF_TOKEN"}[remote.scheme] in said
    for secret in (TOKEN, "a-secret-of-tests"):
        assert secret not in said


def test_a_bucket_that_does_not_exist(remotes: dict[str, Remote], manifest: Manifest, folder: Path) -> None:
    for address in ("s3://nowhere/x", "gs://nowhere/x"):
        store = open_store(parse_location(address))
        with pytest.raises(NotThere, match="no such bucket"):
            send_artefact(store, PREFIX, manifest, folder, options())
    assert open_store(parse_location("hf://tester/unknown")).entries("") == {}


def test_no_server_at_all(
    remotes: dict[str, Remote], manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = S3Store(parse_location("s3://yard/x"))
    with pytest.raises(TransientFailure, match="s3://yard/x"):
        store.read("manifest.json")
    with pytest.raises(StorageUnavailable, match="at each of 2 tries"):
        send_artefact(RetryingStore(store, Retries(tries=2, pause=0.01)), PREFIX, manifest, folder, Options())


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainyardError, match=r"-e \.\[storage\]"):
        open_store(parse_location("s3://bucket/x"))


def test_two_writers_at_once(remote: Remote, manifest: Manifest, folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def send(_: int) -> str:
        return send_artefact(remote.store("two"), PREFIX, manifest, folder, options()).result

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(send, range(2))) <= {"sent", "present"}
    assert check_artefact(remote.store("two"), PREFIX, manifest.id) == []
