"""A fake of the Hugging Face Hub on the loopback: real HTTP, commits with their history, LFS, reads as `hf://` does them.

It knows as much of the Hub's interface as huggingface_hub 2.4 and datasets 5.2 use to push and to stream. It can be told
to misbehave: see `on`. Everything is kept in memory; a thread of its own serves it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import yaml
from aiohttp import web
from processes import PATIENCE

LARGE = re.compile(r"\.(parquet|safetensors|bin|png|model)$")  # what .gitattributes gives to LFS
Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """As git names the blob: of a large file that of its pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        stored = pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0%s" % (len(stored), stored)).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}} if self.lfs else {}
        return {"type": "file", "path": path, "oid": self.oid, "size": len(self.content), **lfs}


@dataclass(frozen=True)
class Commit:
    oid: str
    message: str
    files: dict[str, File]
    added: tuple[str, ...] = ()


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    """The first is that of the Hub itself."""

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        return self.head if revision == "main" else next((one for one in self.commits if one.oid == revision), None)

    def add(self, message: str, changed: dict[str, File | None]) -> Commit:
        files = {**(self.head.files if self.commits else {}), **changed}
        oid = hashlib.sha1(f"{len(self.commits)} {message} {sorted(changed)}".encode()).hexdigest()
        kept = {path: file for path, file in files.items() if file is not None}
        self.commits.append(Commit(oid, message, kept, tuple(sorted(changed))))
        return self.head


@dataclass
class FakeHub:
    """Use it as a context manager. `tokens` holds what whoami says of each; `repos` is keyed `datasets/org/name`."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=lambda: {"hf_good": who()})
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects that have arrived, by sha256."""
    requests: Counter[str] = field(default_factory=Counter)
    """By method and the name of what was asked for: 'PUT lfs', 'POST commit', ..."""
    read_only: set[str] = field(default_factory=set)
    """Repositories to which nobody may write."""
    heard: list[str] = field(default_factory=list)
    """Requests that it knows nothing of."""

    def on(self, what: str, *answers: Answer) -> None:
        """For the next requests of that name, one each; an answer of None lets the request go on as it should."""
        self._plans.setdefault(what, []).extend(answers)

    def forget(self) -> None:
        """What was planned by `on`."""
        self._plans.clear()

    def repo(self, id: str, kind: str = "datasets") -> Repo:
        return self.repos[f"{kind}/{id}"]

    def __post_init__(self) -> None:
        self._plans: dict[str, list[Answer]] = {}

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        for method, path, name in ROUTES:
            app.router.add_route(method, path, self._handler(name))
        app.router.add_route("*", "/{rest:.*}", self._unknown)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        ready.set()
        await self._end.wait()
        await runner.cleanup()

    def _handler(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            label = f"{request.method} {name}"
            self.requests[label] += 1
            plan = self._plans.get(label)
            planned = await plan.pop(0)(request) if plan else None
            return planned if planned is not None else await getattr(self, f"_{name}")(request)

        return handle

    async def _unknown(self, request: web.Request) -> web.Response:
        self.heard.append(f"{request.method} {request.path_qs}")
        return refused(404, "EntryNotFound")

    # --- who asks, and for what ---

    def _user(self, request: web.Request) -> dict[str, Any] | None:
        return self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))

    def _found(self, request: web.Request) -> tuple[Repo, Commit]:
        """The repository and the commit that a request names. Raises the Hub's 404."""
        info = request.match_info
        repo = self.repos.get(f"{info.get('kind', 'models')}/{info['org']}/{info['name']}")
        if repo is None or (repo.private and self._user(request) is None):
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        commit = repo.at(info.get("rev", "main"))
        if commit is None:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return repo, commit

    def _may_write(self, request: web.Request) -> bool:
        user, owner = self._user(request), request.match_info["org"]
        id = f"{request.match_info.get('kind', 'models')}/{owner}/{request.match_info['name']}"
        return bool(user) and role(user) == "write" and id not in self.read_only

    # --- accounts and repositories ---

    async def _whoami(self, request: web.Request) -> web.Response:
        user = self._user(request)
        return web.json_response(user) if user else refused(401, message="Invalid credentials in Authorization header")

    async def _create(self, request: web.Request) -> web.Response:
        asked, user = await request.json(), self._user(request)
        kind = f"{asked.get('type') or 'model'}s"
        id = f"{kind}/{asked['organization']}/{asked['name']}"
        url = f"{self.url}/{'' if kind == 'models' else kind + '/'}{asked['organization']}/{asked['name']}"
        if user is None or role(user) != "write":
            return refused(403, message="You don't have the rights to create a repository here")
        if id in self.repos:
            return web.json_response({"error": "You already created this repo", "url": url}, status=409)
        self.repos[id] = Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        self.repos[id].add("initial commit", {".gitattributes": File(b"*.parquet filter=lfs\n", False)})
        return web.json_response({"url": url})

    async def _auth(self, request: web.Request) -> web.Response:
        self._found(request)
        return web.json_response({}) if self._may_write(request) else refused(403, message="No right to write")

    async def _info(self, request: web.Request) -> web.Response:
        repo, commit = self._found(request)
        info = request.match_info
        siblings = [{"rfilename": path} for path in commit.files]
        return web.json_response({
            "id": f"{info['org']}/{info['name']}", "sha": commit.oid, "private": repo.private, "siblings": siblings, "tags": [], "gated": False,
            "disabled": False, "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z",
        })  # fmt: skip

    # --- writing ---

    async def _yaml(self, request: web.Request) -> web.Response:
        asked = await request.json()
        front = yaml.safe_load(asked["content"].split("---\n")[1])
        base = front.get("base_model", "org/any")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):  # as the Hub does, of what it can know
            return web.json_response(
                {"errors": [{"message": f'"base_model" with value "{base}" is not valid'}], "warnings": []}, status=400
            )
        return web.json_response({"errors": [], "warnings": []})

    async def _preupload(self, request: web.Request) -> web.Response:
        _, commit = self._found(request)
        files = []
        for one in (await request.json())["files"]:
            there = commit.files.get(one["path"])
            mode = "lfs" if LARGE.search(one["path"]) else "regular"
            oid = (there.sha256 if there.lfs else there.oid) if there else None
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return web.json_response({"files": files})

    async def _batch(self, request: web.Request) -> web.Response:
        objects = []
        for one in (await request.json())["objects"]:
            href = {"actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}", "header": {}}}}
            objects.append({**one, **({} if one["oid"] in self.objects else href)})
        return web.json_response({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")

    async def _lfs(self, request: web.Request) -> web.Response:
        content = await request.read()
        if hashlib.sha256(content).hexdigest() != request.match_info["oid"]:
            return refused(400, message="not what was announced")
        self.objects[request.match_info["oid"]] = content
        return web.Response()

    async def _commit(self, request: web.Request) -> web.Response:
        repo, _ = self._found(request)
        if not self._may_write(request):
            return refused(403, message="No right to write")
        header, *operations = [json.loads(line) for line in (await request.text()).splitlines()]
        if header["value"].get("parentCommit") not in (None, repo.head.oid):
            return refused(412, message="A commit has happened since. Please refresh and try again.")
        changed: dict[str, File | None] = {}
        for one in operations:
            value = one["value"]
            if one["key"] == "file":
                changed[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif one["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return refused(400, message=f"{value['path']} was never uploaded")
                changed[value["path"]] = File(self.objects[value["oid"]], True)
            else:
                changed[value["path"]] = None
        made = repo.add(header["value"]["summary"], changed)
        url = f"{self.url}{request.path.removeprefix('/api').removeprefix('/models').rpartition('/commit/')[0]}/commit/{made.oid}"
        return web.json_response({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    # --- reading ---

    async def _tree(self, request: web.Request) -> web.Response:
        _, commit = self._found(request)
        below = request.match_info.get("path", "").strip("/")
        inside = {path: file for path, file in commit.files.items() if not below or path.startswith(f"{below}/")}
        if below and not inside:
            return refused(404, "EntryNotFound")
        deep = request.query.get("recursive", "").lower() == "true"
        folders = {path[:at] for path in inside for at in range(len(below) + 1, len(path)) if path[at] == "/"}
        depth = below.count("/") + 1 if below else 0
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [file.entry(path) for path, file in sorted(inside.items())]
        return web.json_response([one for one in entries if deep or one["path"].count("/") == depth])

    async def _paths(self, request: web.Request) -> web.Response:
        _, commit = self._found(request)
        asked = (await request.json() if request.content_type == "application/json" else dict(await request.post()))["paths"]
        entries: list[dict[str, Any]] = []
        for path in [asked] if isinstance(asked, str) else asked:
            if path in commit.files:
                entries.append(commit.files[path].entry(path))
            elif any(other.startswith(f"{path}/") for other in commit.files):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        return web.json_response(entries)

    async def _resolve(self, request: web.Request) -> web.Response:
        _, commit = self._found(request)
        file = commit.files.get(request.match_info["path"])
        if file is None:
            return refused(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.sha256 if file.lfs else file.oid}"', "Accept-Ranges": "bytes"}
        span = request.http_range
        body = file.content[span]
        if span.start is None and span.stop is None:
            return web.Response(body=body, headers=headers)
        start = span.start if span.start is not None and span.start >= 0 else max(0, len(file.content) + (span.start or 0))
        headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(file.content)}"
        return web.Response(body=body, headers=headers, status=206)


REPO = "{org}/{name}"
ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "yaml"),
    ("GET", f"/api/{{kind}}/{REPO}/auth-check/write", "auth"),
    ("GET", f"/api/{{kind}}/{REPO}", "info"),
    ("GET", f"/api/{{kind}}/{REPO}/revision/{{rev}}", "info"),
    ("GET", f"/api/{{kind}}/{REPO}/tree/{{rev}}", "tree"),
    ("GET", f"/api/{{kind}}/{REPO}/tree/{{rev}}/{{path:.+}}", "tree"),
    ("POST", f"/api/{{kind}}/{REPO}/paths-info/{{rev}}", "paths"),
    ("POST", f"/api/{{kind}}/{REPO}/preupload/{{rev}}", "preupload"),
    ("POST", f"/api/{{kind}}/{REPO}/commit/{{rev}}", "commit"),
    ("POST", f"/{{kind:datasets}}/{REPO}.git/info/lfs/objects/batch", "batch"),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", "batch"),
    ("PUT", "/lfs/{oid}", "lfs"),
    *((method, f"/{{kind:datasets}}/{REPO}/resolve/{{rev}}/{{path:.+}}", "resolve") for method in ("GET", "HEAD")),
    *((method, f"/{REPO}/resolve/{{rev}}/{{path:.+}}", "resolve") for method in ("GET", "HEAD")),
)


def who(name: str = "ada", *, orgs: tuple[str, ...] = ("org",), role: str = "write") -> dict[str, Any]:
    """What whoami says of a token."""
    token = {"type": "access_token", "accessToken": {"displayName": "here", "role": role}}
    return {"type": "user", "name": name, "orgs": [{"type": "org", "name": one} for one in orgs], "auth": token}


def role(user: dict[str, Any]) -> str:
    return str(user["auth"]["accessToken"]["role"])


def refused(status: int, code: str = "", *, message: str = "") -> web.Response:
    headers = {"X-Error-Code": code} if code else {}
    return web.json_response({"error": message}, status=status, headers={**headers, **({"X-Error-Message": message} if message else {})})


# --- answers to plan ---


def fail(status: int, message: str = "not now") -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        return refused(status, message=message)

    return respond


def first(act: Callable[[], object]) -> Answer:
    """Does something, and then lets the request go on."""

    async def respond(_: web.Request) -> None:
        await asyncio.to_thread(act)

    return respond


def lost(hub: FakeHub) -> Answer:
    """The commit is made, and the connection cut before the answer."""

    async def respond(request: web.Request) -> web.StreamResponse:
        await hub._commit(request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return respond
