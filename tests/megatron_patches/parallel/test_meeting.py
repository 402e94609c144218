"""Ranks that do not find each other end within a bound, with a sentence that names the place and the remedy."""

import socket
from datetime import timedelta

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.parallel import meeting

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of rank 0 of two, which waits a second."""
    monkeypatch.setattr(meeting, "MEETING_TIMEOUT", timedelta(seconds=1))
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "RANK": 0, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


def test_one_rank_meets_itself(place: pytest.MonkeyPatch) -> None:
    place.setenv("WORLD_SIZE", "1")
    store = meeting.meet()
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_a_port_that_is_taken(place: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        place.setenv("MASTER_PORT", str(port))
        with pytest.raises(TrainyardError, match=f"port {port} on 127.0.0.1, .* was taken .* export TRAINYARD_PORT="):
            meeting.meet()


def test_a_rank_that_does_not_come(place: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainyardError, match=r"not all 2 processes came to 127\.0\.0\.1 port .* 1/2 clients joined"):
        meeting.meet()


def test_a_rank_0_that_does_not_come(place: pytest.MonkeyPatch) -> None:
    place.setenv("RANK", "1")
    with pytest.raises(TrainyardError, match=r"no connection to rank 0 at 127\.0\.0\.1 port"):
        meeting.meet()
