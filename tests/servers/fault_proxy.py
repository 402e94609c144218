"""A proxy on loopback that breaks requests as networks and servers do."""

import http.client
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


@dataclass
class Fault:
    """What is done to the next request that fits."""

    kind: str
    """cut (no answer), half (half an answer), short (half an answer that calls itself whole), slow, stall (a second
    without an answer), corrupt (a byte of what is sent), or a status such as 500"""
    method: str = ""
    path: str = ""
    """part of it"""
    body: bytes = b""


@dataclass
class FaultProxy:
    """Passes everything on to a server, except for the faults that wait."""

    address: str
    waiting: deque[Fault] = field(default_factory=deque)
    met: list[str] = field(default_factory=list)
    """faults that happened"""
    requests: list[str] = field(default_factory=list)
    """method and path of every request"""
    bodies: int = 0
    """bytes that clients sent"""

    def inject(self, *faults: Fault) -> None:
        """Each happens once, to the first request that it fits."""
        self.waiting.extend(faults)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for a request."""
        for fault in list(self.waiting):
            if fault.method in ("", method) and fault.path in path:
                self.waiting.remove(fault)
                self.met.append(fault.kind)
                return fault
        return None


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy in front of a server given by its address."""
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.read_body()
            proxy.requests.append(f"{self.command} {self.path}")
            proxy.bodies += len(body)
            fault = proxy.take(self.command, self.path)
            if fault and fault.kind == "cut":
                self.close_connection = True
                self.connection.close()
                return
            if fault and fault.kind.isdecimal():
                self.answer(int(fault.kind), [("Content-Type", "application/xml")], fault.body)
                return
            if fault and fault.kind == "slow":
                time.sleep(0.1)
            if fault and fault.kind == "stall":
                time.sleep(1.0)
            if fault and fault.kind == "corrupt" and body:
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
            self.forward(body, fault.kind if fault else "")

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_any

        def read_body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def forward(self, body: bytes, fault: str) -> None:
            connection = http.client.HTTPConnection(host, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            headers["Content-Length"] = str(len(body))
            try:
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                content = response.read()
            finally:
                connection.close()
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP]
            length = response.getheader("Content-Length") if self.command == "HEAD" else None
            if fault == "short":
                content = content[: len(content) // 2]
            self.answer(response.status, kept, content, length, half=fault == "half")

        def answer(
            self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None = None,
            half: bool = False,
        ) -> None:  # fmt: skip
            try:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                if half:
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()
                elif self.command != "HEAD":
                    self.wfile.write(content)
            except OSError:
                self.close_connection = True  # the client went away

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
