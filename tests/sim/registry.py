"""A registry in this process (OCI distribution-spec), which fails as it is told."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from urllib3 import HTTPHeaderDict

from tests.sim.http_server import BreakOff, Reply, Request, http_server


@dataclass
class Registry:
    """What the registry holds, how it is guarded, and what goes wrong.

    ``faults`` are asked in turn about each request; the first that gives something decides.
    ``seen`` lists what arrived.
    """

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    faults: list[Callable[[Request], Reply | BreakOff | None]] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    breaks: list[tuple[str, int]] = field(default_factory=list)
    """Methods whose next request breaks off, each after that many bytes, which are kept."""
    basic: tuple[str, str] | None = None
    challenges: tuple[str, ...] = ('Basic realm="sim"',)
    """What a request without the ``basic`` login is answered with, each in a header of its own."""
    tokens: TokenServer | None = None
    partial: bool = True
    """Whether what came of a PATCH that broke is kept."""
    ranges: bool = True
    """Whether downloads can go on in the middle."""
    mounts: bool = True
    redirect_blobs_to: str | None = None
    patched: int = 202
    """The status of a PATCH that succeeded; Pulp's registry answers 204."""
    stored: int = 201
    """The status of a manifest's PUT that succeeded; some registries answer 202."""
    page: int = 100
    """Names of a page of a list."""
    links: bool = True
    """Whether a page says where the next one is."""
    goes_on: bool = True
    """Whether a list can go on behind a name."""
    goes_round: bool = False
    """Whether it begins anew behind the last."""
    before: Callable[[Request], None] = lambda _: None
    """Called with each request, by several threads at once."""
    finished: int = 201
    """The status of a blob's PUT that succeeded."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Reply | BreakOff:
        self.before(request)
        with self._lock:
            self.seen.append(request)
            for fault in self.faults:
                if (reply := fault(request)) is not None:
                    return reply
            refusal = self._refusal(request)
            return refusal or self.route(request)

    def fault(self, method: str, _path: str) -> BreakOff | None:
        if self.breaks and self.breaks[0][0] == method:
            return BreakOff(self.breaks.pop(0)[1], kept=True)
        return None

    def requests(self, method: str, part: str = "") -> list[Request]:
        """The requests of a method whose path has ``part``."""
        return [r for r in self.seen if r.method == method and part in r.path]

    def blobs_sent(self) -> list[Request]:
        """The requests in which bytes of blobs came."""
        return [r for r in self.seen if "/blobs/uploads/" in r.path and r.body]

    def _refusal(self, request: Request) -> Reply | None:
        authorization = request.headers.get("Authorization", "")
        if self.basic is not None:
            expected = base64.b64encode(":".join(self.basic).encode()).decode()
            if authorization != f"Basic {expected}":
                return unauthorized(*self.challenges)
        if self.tokens is not None:
            scope = ""
            if request.path == "/v2/_catalog":
                scope = "registry:catalog:*"
            elif request.path != "/v2/":
                action = "pull" if request.method in ("GET", "HEAD") else "push"
                scope = f"repository:{split(request.path)[0]}:{action}"
            if not self.tokens.accepts(authorization.removeprefix("Bearer "), scope):
                return unauthorized(self.tokens.challenge)
        return None

    def route(self, request: Request) -> Reply:
        """Answer a request that nothing hinders."""
        if request.path == "/v2/":
            return Reply()
        if request.path == "/v2/_catalog":
            return self._list(request, "repositories", {name for name, _ in self.manifests})
        repository, kind, name = split(request.path)
        if kind == "tags":
            tags = {tag for of, tag in self.manifests if of == repository and ":" not in tag}
            if not tags:
                return error(404, "NAME_UNKNOWN", "repository name not known to registry")
            return self._list(request, "tags", tags)
        if kind == "manifests":
            return self._manifest(request, repository, name)
        if name.startswith("uploads/"):
            return self._upload(request, repository, name.removeprefix("uploads/"))
        return self._blob(request, repository, name)

    def _list(self, request: Request, member: str, names: set[str]) -> Reply:
        (n,), (last,) = (request.query.get(name, [""]) for name in ("n", "last"))
        size = min(int(n or self.page), self.page)
        left = sorted(name for name in names if name > last or not self.goes_on)
        left = left or (sorted(names) if self.goes_round else [])
        query = (
            urlencode({"n": size, "last": left[size - 1]})
            if len(left) > size and self.links
            else ""
        )
        link = {"Link": f'<{request.path}?{query}>; rel="next"'} if query else {}
        return Reply(200, link, json.dumps({member: left[:size]}).encode())

    def _manifest(self, request: Request, repository: str, name: str) -> Reply:
        if request.method == "PUT":
            digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
            stored = (request.headers["Content-Type"], request.body)
            self.manifests[repository, name] = self.manifests[repository, digest] = stored
            return Reply(self.stored, {"Docker-Content-Digest": digest})
        found = self.manifests.get((repository, name))
        if found is None:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, body = found
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        return Reply(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, body)

    def _blob(self, request: Request, repository: str, digest: str) -> Reply:
        blob = self.blobs.get((repository, digest))
        if blob is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown")
        if self.redirect_blobs_to is not None:
            return Reply(307, {"Location": f"{self.redirect_blobs_to}/{digest}?signature=s3cr3t"})
        return ranged(request, blob, ranges=self.ranges)

    def _upload(self, request: Request, repository: str, name: str) -> Reply:
        if request.method == "POST":
            return self._start(request, repository)
        data = self.uploads.get(name)
        if data is None:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown")
        where = {"Location": request.path + "?state=1", "Range": f"0-{max(len(data) - 1, 0)}"}
        if request.method == "DELETE":
            del self.uploads[name]
            return Reply(204)
        if request.method == "GET":
            return Reply(204, where)
        start, _, last = request.headers.get("Content-Range", f"{len(data)}-").partition("-")
        if int(start) != len(data) or int(last or start) < int(start):
            return Reply(416, where)
        if self.partial or request.complete:
            data += request.body
        if request.method == "PATCH":
            where["Range"] = f"0-{max(len(data) - 1, 0)}"
            return Reply(self.patched if request.complete else 400, where)
        return self._finish(request, repository, name)

    def _start(self, request: Request, repository: str) -> Reply:
        if "mount" in request.query and self.mounts:
            (digest,), (origin,) = request.query["mount"], request.query["from"]
            if (origin, digest) in self.blobs:
                self.blobs[repository, digest] = self.blobs[origin, digest]
                return Reply(201, {"Location": f"/v2/{repository}/blobs/{digest}"})
        name = f"upload-{len(self.seen)}"
        self.uploads[name] = bytearray()
        return Reply(202, {"Location": f"/v2/{repository}/blobs/uploads/{name}", "Range": "0-0"})

    def _finish(self, request: Request, repository: str, name: str) -> Reply:
        data = bytes(self.uploads[name])
        (digest,) = request.query["digest"]
        algorithm, _, expected = digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != expected:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        del self.uploads[name]
        self.blobs[repository, digest] = data
        return Reply(self.finished, {"Docker-Content-Digest": digest})


@dataclass
class TokenServer:
    """Hands out tokens that open what was asked for, to who has the password or identity token."""

    realm: str = ""
    password: str | None = None
    identity_token: str | None = None
    life: float = 300
    seen: list[Request] = field(default_factory=list)
    issued: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def challenge(self) -> str:
        return f'Bearer realm="{self.realm}",service="sim, \\"registry\\""'

    def answer(self, request: Request) -> Reply:
        self.seen.append(request)
        query = request.query
        if self.password is not None:
            expected = base64.b64encode(f"user:{self.password}".encode()).decode()
            if request.headers.get("Authorization") != f"Basic {expected}":
                return error(401, "UNAUTHORIZED", "wrong password")
        if self.identity_token is not None:
            query = parse_qs(request.body.decode())
            if query.get("refresh_token") != [self.identity_token]:
                return error(401, "UNAUTHORIZED", "wrong identity token")
        if query.get("service") != ['sim, "registry"']:
            return error(400, "BAD", "wrong service")
        scopes = tuple(" ".join(query.get("scope", [])).split())
        token = f"token-{len(self.issued)}"
        self.issued[token] = (time.monotonic() + self.life, scopes)
        name = "access_token" if self.identity_token else "token"
        return Reply(body=json.dumps({name: token, "expires_in": int(self.life)}).encode())

    def accepts(self, token: str, scope: str) -> bool:
        until, scopes = self.issued.get(token, (0.0, ()))
        if time.monotonic() >= until:
            return False
        kind, _, action = scope.rpartition(":")
        return not scope or any(
            have.rpartition(":")[0] == kind and action in have.rpartition(":")[2].split(",")
            for have in scopes
        )


@contextmanager
def serve(registry: Registry, *, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[str]:
    """Serve on loopback while the block runs, and give ``host:port``."""
    with http_server(registry.answer, tls=tls, port=port, fault=registry.fault) as base:
        yield urlsplit(base).netloc


@contextmanager
def serve_tokens(tokens: TokenServer, *, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """Serve tokens while the block runs, and let the challenge name the place."""
    with http_server(tokens.answer, tls=tls) as base:
        tokens.realm = f"{base}/token"
        yield


def ranged(request: Request, blob: bytes, *, ranges: bool = True) -> Reply:
    """Answer with a blob, or with the rest of it that is asked for."""
    asked = request.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
    if asked and ranges:
        start = int(asked)
        return Reply(
            206, {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}, blob[start:]
        )
    return Reply(200, {}, blob)


def error(status: int, code: str, message: str) -> Reply:
    """An error as the distribution-spec writes it."""
    return Reply(status, {}, json.dumps({"errors": [{"code": code, "message": message}]}).encode())


def unauthorized(*challenges: str) -> Reply:
    """Return a refusal with each challenge in a header of its own."""
    reply = error(401, "UNAUTHORIZED", "authentication required")
    headers = HTTPHeaderDict()
    for challenge in challenges:
        headers.add("WWW-Authenticate", challenge)
    return Reply(401, headers, reply.body)


def split(path: str) -> tuple[str, str, str]:
    """Return the repository, the kind and the name in a path; the path alone if it is another."""
    for kind in ("manifests", "blobs", "tags"):
        repository, found, name = path.removeprefix("/v2/").partition(f"/{kind}/")
        if found:
            return repository, kind, name
    return path, "", ""
