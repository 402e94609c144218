"""The endpoints of the Hugging Face hub that its client uses to commit, list and read, on loopback and in memory.

Files whose names end in .json or .yaml, and empty ones, are kept in git, all others as LFS objects.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_for_tests"


@dataclass
class Hub:
    """Repositories by name, LFS objects by hash, buckets. A branch other than `main` is kept as a repository
    `name@branch`.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    """the repository, or the branch of one, by the hash of its last commit"""
    large: dict[str, set[str]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    buckets: dict[str, dict[str, str]] = field(default_factory=dict)
    """hashes of Xet by path, by bucket; their content is among the objects"""
    tags: list[str] = field(default_factory=list)
    """of every repository"""
    commits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, name: str, revision: str | None) -> str:
        """The key of a repository's revision; what is no branch is a commit, of `main` where it is not known."""
        if revision in (None, "main"):
            return name
        return self.heads.get(
            revision or "", name if re.fullmatch("[0-9a-f]{40}", revision or "") else f"{name}@{revision}"
        )

    def head(self, key: str) -> str:
        """The hash of a branch's last commit."""
        return next((sha for sha, known in reversed(self.heads.items()) if known == key), f"{self.commits:040x}")


def _is_large(name: str, size: int) -> bool:
    return size > 0 and not name.endswith((".json", ".yaml"))


@contextmanager
def hub_server() -> Iterator[tuple[str, Hub]]:
    """The address of a hub that knows one token, and what it holds."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            # a dataset is kept as a repository of models under a name of its own
            path = re.sub(
                r"^(/api)?/datasets/", lambda found: "/api/models/datasets~" if found[1] else "/datasets~", path
            )
            if not path.startswith("/objects/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.say(401, {"error": "Invalid credentials in Authorization header"})
                return
            for method, pattern, action in ROUTES:
                if (method == self.command or (method == "GET" and self.command == "HEAD")) and (
                    found := re.fullmatch(pattern, path)
                ):
                    action(self, body, *found.groups())
                    return
            self.say(404, {"error": f"no route for {self.command} {path}"})

        do_GET = do_PUT = do_POST = do_HEAD = handle_any

        def whoami(self, body: bytes) -> None:
            self.say(200, {"type": "user", "name": "tester", "orgs": []})

        def create(self, body: bytes) -> None:
            wanted = json.loads(body)
            of_type = "datasets~" if wanted.get("type") == "dataset" else ""
            name = f"{of_type}{wanted.get('organization') or 'tester'}/{wanted['name']}"
            if name in hub.files:
                self.say(
                    409, {"error": "You already created this repo", "url": f"{self.base()}/{name.replace('~', '/')}"}
                )
                return
            hub.files[name], hub.large[name] = {}, set()
            self.say(200, {"url": f"{self.base()}/{name.replace('~', '/')}", "name": name})

        def preupload(self, body: bytes, name: str) -> None:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if _is_large(each["path"], each["size"]) else "regular",
                    "shouldIgnore": False,
                }
                for each in files
            ]
            self.say(200, {"files": modes})

        def batch(self, body: bytes, name: str) -> None:
            answers = []
            for each in json.loads(body)["objects"]:
                answer: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
                if each["oid"] not in hub.objects:
                    answer["actions"] = {"upload": {"href": f"{self.base()}/objects/{each['oid']}", "header": {}}}
                answers.append(answer)
            self.say(200, {"transfer": "basic", "objects": answers})

        def put_object(self, body: bytes, oid: str) -> None:
            if hashlib.sha256(body).hexdigest() != oid:
                self.say(400, {"error": "the content does not have that hash"})
                return
            with hub.lock:
                hub.objects[oid] = body
            self.say(200, {})

        def refs(self, body: bytes, name: str) -> None:
            if name not in hub.files:
                self.say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            branches = ["main", *(key.partition("@")[2] for key in hub.files if key.startswith(f"{name}@"))]
            known = [
                {"name": each, "ref": f"refs/heads/{each}", "targetCommit": hub.head(hub.at(name, each))}
                for each in branches
            ]
            tags = [{"name": each, "ref": f"refs/tags/{each}", "targetCommit": "0" * 40} for each in hub.tags]
            self.say(200, {"branches": known, "converts": [], "tags": tags})

        def branch(self, body: bytes, name: str, revision: str) -> None:
            with hub.lock:
                key = hub.at(name, revision)
                if key in hub.files:
                    self.say(409, {"error": "Reference already exists"})
                    return
                hub.files[key], hub.large[key] = dict(hub.files[name]), set(hub.large[name])
            self.say(200, {"success": True})

        def commit(self, body: bytes, name: str, revision: str) -> None:
            name = hub.at(name, revision)
            if name not in hub.files:
                self.say(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
                return
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            with hub.lock:
                files, large = hub.files[name], hub.large[name]
                for line in lines:
                    value = line["value"]
                    if line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                        large.discard(value["path"])
                    elif line["key"] == "lfsFile":
                        files[value["path"]] = hub.objects[value["oid"]]
                        large.add(value["path"])
                    elif line["key"] == "deletedFile":
                        files.pop(value["path"], None)
                    elif line["key"] == "deletedFolder":
                        for path in [path for path in files if path.startswith(value["path"])]:
                            del files[path]
                hub.commits += 1
                hub.heads[f"{hub.commits:040x}"] = name
            url = f"{self.base()}/{name.replace('~', '/')}/commit/{hub.commits:040x}"
            self.say(200, {"commitUrl": url, "commitOid": f"{hub.commits:040x}", "success": True})

        def tree(self, body: bytes, name: str, revision: str, folder: str | None) -> None:
            name = hub.at(name, revision)
            prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
            found = [each for each in sorted(hub.files.get(name, {})) if each.startswith(prefix)]
            if name not in hub.files:
                self.say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif prefix and not found:
                self.say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            elif "recursive=true" in urlsplit(self.path).query.lower():
                self.say(200, [self.record(name, each) for each in found])
            else:
                inside = {each.removeprefix(prefix).partition("/")[0]: each for each in found}
                self.say(200, [self.record(name, each) if f"{prefix}{first}" == each else
                               {"type": "directory", "path": f"{prefix}{first}", "oid": "0" * 40, "size": 0}
                               for first, each in inside.items()])  # fmt: skip

        def record(self, name: str, path: str) -> dict[str, Any]:
            content = hub.files[name][path]
            oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            record: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
            if path in hub.large[name]:
                sha256 = hashlib.sha256(content).hexdigest()
                record["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            return record

        def paths_info(self, body: bytes, name: str, revision: str) -> None:
            name = hub.at(name, revision)
            wanted = json.loads(body)["paths"]
            self.say(200, [self.record(name, path) for path in wanted if path in hub.files.get(name, {})])

        def info(self, body: bytes, name: str, revision: str | None) -> None:
            if name not in hub.files:
                self.say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif (key := hub.at(name, revision)) not in hub.files:
                self.say(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            else:
                siblings = [{"rfilename": each} for each in hub.files[key]]
                self.say(200, {"id": name, "modelId": name, "sha": hub.head(key), "siblings": siblings, "tags": []})

        def resolve(self, body: bytes, repository: str, revision: str, path: str) -> None:
            name = hub.at(repository, revision)
            content = hub.files.get(name, {}).get(path)
            if content is None:
                missing = "RevisionNotFound" if repository in hub.files else "RepoNotFound"
                code = "EntryNotFound" if name in hub.files else missing
                self.say(404, {"error": "not found"}, {"X-Error-Code": code})
                return
            etag = hashlib.sha256(content).hexdigest()
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
                content, whole = content[first : last + 1], len(content)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
            else:
                self.send_response(200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", hub.head(name))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def create_bucket(self, body: bytes, name: str) -> None:
            with hub.lock:
                hub.buckets.setdefault(name, {})
            self.say(200, {"url": f"{self.base()}/buckets/{name}"})

        def bucket_info(self, body: bytes, name: str) -> None:
            if name not in hub.buckets:
                self.say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            facts = {"private": True, "createdAt": "2026-01-01T00:00:00.000Z", "size": 0, "totalFiles": 0}
            self.say(200, {"id": name, **facts})

        def bucket_tree(self, body: bytes, name: str, folder: str | None) -> None:
            if name not in hub.buckets:
                self.bucket_info(body, name)
                return
            prefix = (folder or "").strip("/")
            self.say(
                200, [self.bucket_file(name, each) for each in sorted(hub.buckets[name]) if each.startswith(prefix)]
            )

        def bucket_file(self, name: str, path: str) -> dict[str, Any]:
            xet = hub.buckets[name][path]
            return {"type": "file", "path": path, "size": len(hub.objects[xet]), "xetHash": xet}

        def bucket_paths(self, body: bytes, name: str) -> None:
            wanted = json.loads(body)["paths"]
            self.say(200, [self.bucket_file(name, path) for path in wanted if path in hub.buckets.get(name, {})])

        def bucket_batch(self, body: bytes, name: str) -> None:
            with hub.lock:
                for line in map(json.loads, body.splitlines()):
                    if line["type"] == "addFile":
                        hub.buckets[name][line["path"]] = line["xetHash"]
                    else:
                        hub.buckets[name].pop(line["path"], None)
            self.say(200, {"success": True, "failed": []})

        def bucket_content(self, body: bytes, name: str, path: str) -> None:
            xet = hub.buckets.get(name, {}).get(path)
            if xet is None:
                self.say(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            content = hub.objects[xet]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                with suppress(ConnectionError):  # a client that has read enough goes away
                    self.wfile.write(content)

        def base(self) -> str:
            return f"http://{self.headers['Host']}"

        def say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            return

    ROUTES = [
        ("GET", r"/api/whoami-v2", Handler.whoami),
        ("POST", r"/api/repos/create", Handler.create),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/[^/]+", Handler.preupload),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
        ("PUT", r"/objects/([0-9a-f]{64})", Handler.put_object),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", Handler.commit),
        ("GET", r"/api/models/([^/]+/[^/]+)/refs", Handler.refs),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", Handler.branch),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(/.*)?", Handler.tree),
        ("POST", r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", Handler.paths_info),
        ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", Handler.info),
        ("GET", r"/buckets/([^/]+/[^/]+)/resolve/(.+)", Handler.bucket_content),
        ("POST", r"/api/buckets/([^/]+/[^/]+)/batch", Handler.bucket_batch),
        ("POST", r"/api/buckets/([^/]+/[^/]+)/paths-info", Handler.bucket_paths),
        ("GET", r"/api/buckets/([^/]+/[^/]+)/tree(/.*)?", Handler.bucket_tree),
        ("POST", r"/api/buckets/([^/]+/[^/]+)", Handler.create_bucket),
        ("GET", r"/api/buckets/([^/]+/[^/]+)", Handler.bucket_info),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", Handler.resolve),
    ]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", hub
    finally:
        server.shutdown()
        server.server_close()
