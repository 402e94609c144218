"""The connection to the hub: one client for all that the libraries ask, which waits, tries again, and says so.

The libraries try again in three layers, one inside the other (huggingface_hub: 6 times; datasets: 20 times for reading
and 20 for opening, 5 to 60 s apart), so that a server that stalls holds a run for hours, without a word. Their client
can be replaced. Ours raises what none of these layers knows, and so none of them tries again.
"""

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import httpx2

FIRST_PAUSE = 1.0
"""seconds before the second try; each further pause is twice as long"""
LONGEST_PAUSE = 60.0
"""also the longest that a server may ask for"""
FIRST_REACH = 3.0
"""seconds in which the first connection must stand: a machine without a network often drops what it is to send"""
UNWANTED = ("HF_UPDATE_DOWNLOAD_COUNTS", "TORCH_AVAILABLE")
"""what datasets does unasked: it counts uses by a request to another host, and imports torch (3 s of CPU time) to share
a number with workers"""
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""answers that another try may change"""


class HubFailure(Exception):
    """The hub did not answer as it should, however often it was asked; the message says what happened."""


class HubUnreachable(HubFailure):
    """No connection stands or ever stood: there is no network, or no way to this address."""


class Patience(NamedTuple):
    """How long an answer may take, and how often it is asked for again."""

    timeout_seconds: float
    retries: int


def use_patience(patience: Patience) -> None:
    """Gives the libraries a client with this patience, and keeps their progress bars and notes off stderr.

    It holds for the whole process, as their client does: of several datasets, the one opened or read on last decides.
    """
    import datasets
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    datasets.disable_progress_bars()
    for name in ("datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in UNWANTED:
        setattr(datasets.config, name, False)
    global _patience
    if _patience != patience:
        _patience = patience
        set_client_factory(lambda: _patient_client(patience))


_patience: Patience | None = None
_reached = False
"""whether an answer ever came: from then on, a connection that cannot be made is worth another try"""


def _patient_client(patience: Patience) -> "httpx2.Client":
    import httpx2
    from huggingface_hub.utils._http import hf_request_event_hook

    class PatientClient(httpx2.Client):
        """Asks again, after a growing pause, where that may help: bodies that came cut off are asked for as well."""

        def send(self, request: httpx2.Request, **options: object) -> httpx2.Response:
            for attempt in range(patience.retries + 1):
                response, trouble = self.attempt(request, options)
                if trouble is None:
                    assert response is not None
                    return response
                if attempt < patience.retries:
                    _pause(attempt, trouble, response, patience)
            raise HubFailure(f"{trouble}, {patience.retries + 1} times; is the address of the hub right, is it down?")

        def attempt(
            self, request: httpx2.Request, options: dict[str, object]
        ) -> tuple[httpx2.Response | None, str | None]:
            """An answer, what is wrong with it, or both."""
            global _reached
            reach = patience.timeout_seconds if _reached else min(FIRST_REACH, patience.timeout_seconds)
            waits = dict.fromkeys(("read", "write", "pool"), patience.timeout_seconds)
            request.extensions["timeout"] = {**waits, "connect": reach}
            host = request.url.host
            try:
                response = super().send(request, **options)  # type: ignore[arg-type]
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if not _reached:
                    raise HubUnreachable(f"no connection to {host} ({error})") from error
                return None, f"no connection to {host} ({error})"
            except httpx2.TimeoutException:
                return None, f"no answer from {host} within {patience.timeout_seconds:g} s"
            except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
                return None, f"the connection to {host} was cut ({error})"
            _reached = True
            if response.status_code in AGAIN:
                response.close()
                return response, f"{host} answered {response.status_code} ({response.reason_phrase})"
            return response, None if options.get("stream") else _shortage(request, response)

    return PatientClient(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True)


def _shortage(request: "httpx2.Request", response: "httpx2.Response") -> str | None:
    """What is missing of a body that was asked for by a range: its reader would take it for the end of the file."""
    wanted = request.headers.get("range", "").removeprefix("bytes=")
    first, _, last = wanted.partition("-")
    if not first or not last or not response.is_success:
        return None
    if response.status_code != 206:
        return f"{request.url.host} ignores ranges: it sent a whole file where {wanted} was asked for"
    expected = int(last) - int(first) + 1
    total = response.headers.get("content-range", "").rpartition("/")[2]
    if total.isdecimal():
        expected = min(expected, int(total) - int(first))
    there = len(response.content)
    return None if there == expected else f"{request.url.host} sent {there:,} of {expected:,} bytes"


def _pause(attempt: int, trouble: str, response: "httpx2.Response | None", patience: Patience) -> None:
    pause = FIRST_PAUSE * 2**attempt
    asked = "" if response is None else response.headers.get("retry-after", "")
    if asked.isdecimal():
        pause = max(pause, float(asked))
    pause = min(pause, LONGEST_PAUSE)
    print(
        f"note: {trouble}; trying again in {pause:g} s ({attempt + 1} of {patience.retries})",
        file=sys.stderr,
        flush=True,
    )
    time.sleep(pause)


def offline() -> bool:
    """Whether the libraries were told to do without a network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
