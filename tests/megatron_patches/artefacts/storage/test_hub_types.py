"""Datasets and buckets of the hub through its real client; Xet's own transfer of bytes has a stand-in."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_patches.artefacts.location import parse_location
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.storage.fetch import fetch_artefact
from megatron_patches.artefacts.storage.hf import HubStore
from megatron_patches.artefacts.storage.loose import fetch_loose, send_loose
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.artefacts.storage.store import DamagedCopy
from megatron_patches.artefacts.storage.transfer import Options, check_artefact, send_artefact
from megatron_patches.errors import TrainyardError
from tests.servers.hub import TOKEN, Hub, hub_server
from tests.small_artefacts import RUN
from tools.commands.sync_to_hub.pull import Pull, pull

pytestmark = pytest.mark.slow  # a server
PREFIX = "checkpoints/step-0000000100"
RETRIES = Retries(tries=2, pause=0.01)


class XetStandIn:
    """Takes bytes as Xet's session does: by their hash, without its server."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def new_upload_commit(self, **_: Any) -> "XetStandIn":
        return self

    def __enter__(self) -> "XetStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def start_upload_file(self, path: str, **_: Any) -> SimpleNamespace:
        import hf_xet

        info = hf_xet.hash_files([path])[0]
        self._hub.objects[info.hash] = Path(path).read_bytes()
        return SimpleNamespace(result=lambda: SimpleNamespace(xet_info=info))

    def start_upload_bytes(self, content: bytes, **_: Any) -> SimpleNamespace:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            return self.start_upload_file(file.name)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants
    from huggingface_hub.utils import _xet

    with hub_server() as (address, hub):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # of reading: it takes plain HTTP then
        monkeypatch.setattr(_xet, "get_xet_session", lambda: XetStandIn(hub))
        yield hub


@pytest.mark.parametrize(
    "address", ["hf://datasets/tester/runs/x", "hf://models/tester/runs", "hf://buckets/tester/runs/x"]
)
def test_there_and_back(hub: Hub, tmp_path: Path, manifest: Manifest, folder: Path, address: str) -> None:
    store = open_store(parse_location(address), RETRIES)
    assert store.entries("") == {}
    assert send_artefact(store, PREFIX, manifest, folder, Options()).files == 6
    assert send_artefact(store, PREFIX, manifest, folder, Options()).result == "present"
    assert check_artefact(store, PREFIX, manifest.id) == []
    assert fetch_artefact(store, PREFIX, manifest, tmp_path / "back", Options()).result == "fetched"
    assert (tmp_path / "back" / "trainer.json").read_bytes() == (folder / "trainer.json").read_bytes()
    store.delete(f"{PREFIX}/config.yaml")
    store.delete(f"{PREFIX}/config.yaml")
    assert len(check_artefact(store, PREFIX, manifest.id)) == 1
    assert list(hub.files) == {"d": ["datasets~tester/runs"], "m": ["tester/runs"], "b": []}[address[5]]
    assert list(hub.buckets) == (["tester/runs"] if "buckets" in address else [])


def test_a_bucket_holds_the_beginning_of_a_file_that_grows(hub: Hub, tmp_path: Path) -> None:
    store = open_store(parse_location("hf://buckets/tester/runs"), RETRIES)
    log = tmp_path / "logs" / "0001.log"
    log.parent.mkdir()
    log.write_text("one\n")
    assert send_loose(store, "logs", log.parent, [log], Options()).files == 1
    log.write_text("one\ntwo\n")
    assert send_loose(store, "logs", log.parent, [log], Options()).files == 1
    assert fetch_loose(store, "logs", tmp_path / "back", Options()).files == 1
    assert (tmp_path / "back" / "0001.log").read_text() == "one\ntwo\n"


def test_a_bucket_whose_file_is_larger_than_its_manifest_says(
    hub: Hub, tmp_path: Path, manifest: Manifest, folder: Path
) -> None:
    store = open_store(parse_location("hf://buckets/tester/runs"), RETRIES)
    send_artefact(store, PREFIX, manifest, folder, Options())
    hub.objects[hub.buckets["tester/runs"][f"{PREFIX}/weights-00000.safetensors"]] = b"x" * 10_000_000
    with pytest.raises(DamagedCopy, match="larger than the 2,000 bytes"):
        fetch_artefact(store, PREFIX, manifest, tmp_path / "back", Options())


def test_a_client_that_knows_no_buckets(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.delattr(HfApi, "batch_bucket_files")
    with pytest.raises(TrainyardError, match="knows no buckets"):
        open_store(parse_location("hf://buckets/tester/runs"))


def test_types_of_addresses(hub: Hub) -> None:
    store = HubStore(parse_location("hf://datasets/org/repo@side/folder"))
    assert store._address("x") == ("datasets/org/repo/folder/x", "side")


def test_keys_of_a_bucket_that_no_folder_can_have(hub: Hub, tmp_path: Path, manifest: Manifest, folder: Path) -> None:
    location = parse_location(f"hf://buckets/tester/runs/{RUN}")
    send_artefact(open_store(location, RETRIES), PREFIX, manifest, folder, Options())
    keys = hub.buckets["tester/runs"]
    content = keys[f"{RUN}/{PREFIX}/manifest.json"]
    for name in ("", "..", ".", "\x1b]52;c;AAAA\x07", "a/../../b", "-x"):
        keys[f"{RUN}/checkpoints/{name}/manifest.json"] = content
    lines = list(pull(Pull(location, tmp_path / "into" / RUN, retries=RETRIES)))
    assert [line.name for line in lines if line.word == "fetched"] == [PREFIX]
    odd = sorted(line.problem.split("'")[1] for line in lines if line.word == "passed over")
    assert odd == sorted(["", "..", ".", r"\x1b]52;c;AAAA\x07", "-x"])
    made = {path.relative_to(tmp_path / "into").as_posix() for path in (tmp_path / "into").rglob("*") if path.is_dir()}
    assert made == {RUN, f"{RUN}/checkpoints", f"{RUN}/{PREFIX}"}
