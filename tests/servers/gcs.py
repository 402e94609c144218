"""Google Cloud Storage's JSON protocol on loopback: objects in memory, simple, multipart and resumable uploads."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Bucket:
    """Objects by name, and uploads that are going on."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.lock = threading.Lock()

    def record(self, name: str) -> dict[str, Any]:
        """What the server states of an object."""
        content = self.objects[name]
        return {
            "kind": "storage#object", "name": name, "bucket": "yard", "size": str(len(content)), "generation": "1",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "contentType": "application/octet-stream",
            "updated": "2026-01-01T00:00:00Z", "timeCreated": "2026-01-01T00:00:00Z",
            "mediaLink": f"/download/storage/v1/b/yard/o/{name}?alt=media",
        }  # fmt: skip


@contextmanager
def gcs_server() -> Iterator[tuple[str, Bucket]]:
    """The address of a server with the bucket `yard`, and the bucket."""
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, query = self.taken_apart()
            if found := re.fullmatch(r"(?:/download)?/storage/v1/b/yard/o/(.+)", path):
                self.get_object(unquote(found[1]), query)
            elif path == "/storage/v1/b/yard/o":
                self.list_objects(query)
            elif path == "/storage/v1/b/yard":
                self.say(200, {"kind": "storage#bucket", "name": "yard", "id": "yard"})
            else:
                self.say(404, {"error": {"code": 404, "message": f"not found: {path}"}})

        def get_object(self, name: str, query: dict[str, str]) -> None:
            if name not in bucket.objects:
                self.say(404, {"error": {"code": 404, "message": "no such object"}})
            elif query.get("alt") == "media":
                self.send_content(bucket.objects[name])
            else:
                self.say(200, bucket.record(name))

        def send_content(self, content: bytes) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and int(wanted[1]) >= len(content):
                self.say(416, {"error": {"code": 416}})
                return
            part = content[int(wanted[1]) : int(wanted[2]) + 1 if wanted[2] else None] if wanted else content
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("X-Goog-Hash", f"md5={base64.b64encode(hashlib.md5(content).digest()).decode()}")
            self.end_headers()
            self.wfile.write(part)

        def list_objects(self, query: dict[str, str]) -> None:
            prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
            items, prefixes = [], set()
            for name in sorted(bucket.objects):
                rest = name.removeprefix(prefix)
                if not name.startswith(prefix):
                    continue
                if delimiter and delimiter in rest:
                    prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
                else:
                    items.append(bucket.record(name))
            self.say(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

        def do_POST(self) -> None:
            path, query = self.taken_apart()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "upload_id" in query:
                self.receive_part(query["upload_id"], body)
                return
            if path != "/upload/storage/v1/b/yard/o":
                self.say(404, {"error": {"code": 404, "message": f"not found: {path}"}})
            elif query["uploadType"] == "resumable":
                name = query.get("name") or json.loads(body)["name"]
                with bucket.lock:
                    key = str(len(bucket.uploads))
                    bucket.uploads[key] = (name, bytearray())
                address = f"http://{self.headers['Host']}{path}?uploadType=resumable&upload_id={key}"
                self.say(200, {}, {"Location": address})
            elif query["uploadType"] == "multipart":
                self.store(*self.parts(body))
            else:
                self.store(query["name"], body)

        def parts(self, body: bytes) -> tuple[str, bytes]:
            found = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
            assert found is not None
            _, metadata, content, _ = body.split(b"--" + found[1].encode())
            blank = re.compile(rb"\r?\n\r?\n")
            content = blank.split(content, maxsplit=1)[1]
            content = content.removesuffix(b"\n").removesuffix(b"\r")  # the line break before the boundary
            return json.loads(blank.split(metadata, maxsplit=1)[1])["name"], content

        def do_PUT(self) -> None:
            _, query = self.taken_apart()
            self.receive_part(query["upload_id"], self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def receive_part(self, upload: str, body: bytes) -> None:
            name, received = bucket.uploads[upload]
            found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers.get("Content-Range", ""))
            if found and found[1] is not None:
                del received[int(found[1]) :]
            received += body
            if found is None or (found[3] != "*" and len(received) >= int(found[3])):
                self.store(name, bytes(received))
            else:
                last = {"Range": f"bytes=0-{len(received) - 1}"} if received else {}
                self.say(308, None, last)

        def store(self, name: str, content: bytes) -> None:
            with bucket.lock:
                bucket.objects[name] = content
            self.say(200, bucket.record(name))

        def do_DELETE(self) -> None:
            path, _ = self.taken_apart()
            name = unquote(path.removeprefix("/storage/v1/b/yard/o/"))
            with bucket.lock:
                known = bucket.objects.pop(name, None)
            self.say(204 if known is not None else 404, None)

        def taken_apart(self) -> tuple[str, dict[str, str]]:
            parts = urlsplit(self.path)
            return parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}

        def say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bucket
    finally:
        server.shutdown()
        server.server_close()
