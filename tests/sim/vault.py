"""A Vault in this process: KV 1 and 2, transit, AppRole, Kubernetes, and its refusals.

Written from the sources of Vault 1.21.4 and its API documentation, with none of our own code. The
tests of tests/replay/test_vault_simulator.py, but for its last class, passed on that Vault, too
(26 November 2026); no package registry has one that builds without changes.
"""

from __future__ import annotations

import json
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.sim.http_server import Reply, Request, http_server
from tests.sim.transit import RequestError, Transit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

ROOT_TOKEN: Final = "hvs.CAESIroot"
MONTH: Final = 32 * 24 * 3600
"""Seconds for which a token or a lease holds if nothing else is said (Vault's default)."""

DENIED: Final = "1 error occurred:\n\t* permission denied\n\n"
"""To a token that is good, for what its policy does not allow."""
INVALID_TOKEN: Final = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
"""To a token that never was, was revoked, or has expired."""
NOT_VERSIONED: Final = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API "
    "endpoints to use. If using the Vault CLI, use 'vault kv {}' for this operation."
)


@dataclass
class Token:
    """Whose bearer may do everything but, unless it is the root's, what policies deny."""

    name: str = "root"
    expires: float | None = None
    """When, in seconds since the epoch; None for never."""


@dataclass
class SimulatedVault:
    """What the Vault has and how it behaves; a test may change both at any time."""

    url: str = ""
    sealed: bool = False
    namespace: str = ""
    """The only namespace that its tokens are good in; the root's is empty."""
    mounts: dict[str, str] = field(
        default_factory=lambda: {"kv": "kv-1", "secret": "kv-2", "transit": "transit"}
    )
    """Engines by path: ``kv-1``, ``kv-2`` or ``transit``."""
    tokens: dict[str, Token] = field(default_factory=lambda: {ROOT_TOKEN: Token()})
    denied: set[str] = field(default_factory=set)
    """Paths behind ``/v1/`` that root's token alone may ask for."""
    app_roles: dict[str, str] = field(default_factory=dict)
    """Secret IDs by role ID."""
    service_accounts: dict[str, str] = field(default_factory=dict)
    """Kubernetes tokens (JWT) by role."""
    token_ttl: int = MONTH
    """Seconds for which the token of a login holds."""
    secrets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Versions by mount and path (``secret/app/kek``), the oldest first; of KV 1 only the last."""
    transit: Transit = field(default_factory=Transit)
    faults: dict[str, Callable[[Request], Reply | None]] = field(default_factory=dict)
    """Asked first, by ``METHOD path`` (``GET secret/data/kek``); after None it answers as ever."""
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Reply:
        """Answer as a Vault does."""
        self.requests.append(request)
        path = request.path.removeprefix("/v1/")
        if (fault := self.faults.get(f"{request.method} {path}")) and (reply := fault(request)):
            return reply
        if path in ("sys/health", "sys/seal-status"):
            return self._status(path)
        if self.sealed:
            return errors(503, "Vault is sealed")
        try:
            body = json.loads(request.body or b"{}")
        except ValueError as error:
            return errors(400, f"failed to parse JSON input: {error}")
        try:
            if path.startswith("auth/") and path.endswith("/login"):
                return self._login(path, body, request)
            return self._refusal(path, request) or self._route(path, body, request)
        except RequestError as error:
            return errors(400, str(error))
        except PermissionError:
            return errors(403, DENIED)

    def _status(self, path: str) -> Reply:
        """Answer what needs no token and no unsealed Vault."""
        document = {"initialized": True, "sealed": self.sealed, "version": "1.21.4"}
        return json_reply(document, 503 if self.sealed and path == "sys/health" else 200)

    def _login(self, path: str, body: dict[str, Any], request: Request) -> Reply:
        if request.headers.get("X-Vault-Namespace", "").strip("/") != self.namespace:
            return errors(403, "permission denied")
        match path.split("/"):
            case ["auth", "approle", "login"]:
                role = body.get("role_id")
                if not role:
                    raise RequestError("missing role_id")
                if self.app_roles.get(role, object()) != body.get("secret_id"):
                    raise RequestError("invalid role or secret ID")
                return self._logged_in("approle", {"role_name": "coco-kp"})
            case ["auth", "kubernetes", "login"]:
                role = body.get("role", "")
                if role not in self.service_accounts:
                    raise RequestError(f'invalid role name "{role}"')
                if self.service_accounts[role] != body.get("jwt"):
                    return errors(403, "permission denied")
                return self._logged_in("kubernetes", {"role": role})
        return errors(404, no_route(path))

    def _logged_in(self, name: str, metadata: dict[str, str]) -> Reply:
        token = f"hvs.{uuid.uuid4().hex}"
        self.tokens[token] = Token(name, time.time() + self.token_ttl)
        auth = {
            "client_token": token,
            "accessor": uuid.uuid4().hex,
            "policies": ["coco-kp", "default"],
            "token_policies": ["coco-kp", "default"],
            "metadata": metadata,
            "lease_duration": self.token_ttl,
            "renewable": True,
            "entity_id": str(uuid.uuid4()),
            "token_type": "service",
            "orphan": True,
            "mfa_requirement": None,
            "num_uses": 0,
        }
        return answered(None, auth=auth)

    def _refusal(self, path: str, request: Request) -> Reply | None:
        """Refuse what the token does not allow."""
        if not (given := request.headers.get("X-Vault-Token", "")):
            return errors(403, "permission denied")
        token = self.tokens.get(given)
        if token is None or (token.expires is not None and token.expires <= time.time()):
            return errors(403, INVALID_TOKEN)
        if request.headers.get("X-Vault-Namespace", "").strip("/") != self.namespace:
            return errors(403, "permission denied")
        return errors(403, DENIED) if path in self.denied and token.name != "root" else None

    def _route(self, path: str, body: dict[str, Any], request: Request) -> Reply:
        if (request.method, path) == ("GET", "auth/token/lookup-self"):
            return self._looked_up(request.headers["X-Vault-Token"])
        if (request.method, path) == ("PUT", "sys/seal"):
            self.sealed = True
            return Reply(204)
        mount, _, rest = path.partition("/")
        match self.mounts.get(mount):
            case "kv-1":
                return self._kv_1(request.method, path, body)
            case "kv-2":
                return self._kv_2(request, mount, rest, body)
            case "transit":
                data = self.transit.answer(request.method, rest.split("/"), body)
                return errors(404) if data is None else answered(data, kind="transit")
        if path.startswith("sys/internal/ui/mounts/"):
            return self._mount(path.removeprefix("sys/internal/ui/mounts/").split("/")[0])
        return errors(404, no_route(path))

    def _looked_up(self, given: str) -> Reply:
        token = self.tokens[given]
        left = 0 if token.expires is None else round(token.expires - time.time())
        data = {
            "accessor": "0e9e354a520df04867081372",
            "creation_time": 1764130000,
            "creation_ttl": 0 if token.expires is None else self.token_ttl,
            "display_name": token.name,
            "entity_id": "",
            "expire_time": None,
            "explicit_max_ttl": 0,
            "id": given,
            "meta": None,
            "num_uses": 0,
            "orphan": True,
            "path": f"auth/{token.name}/login",
            "policies": ["root"] if token.name == "root" else ["coco-kp", "default"],
            "ttl": left,
            "type": "service",
        }
        return answered(data, kind="token")

    def _mount(self, mount: str) -> Reply:
        """Answer by which clients learn the version of a KV engine."""
        if mount not in self.mounts:
            return errors(
                403,
                "preflight capability check returned 403, please ensure client's "
                f'policies grant access to path "{mount}/"',
            )
        kind, _, version = self.mounts[mount].partition("-")
        options = {"version": version} if version else None
        return answered({"path": f"{mount}/", "type": kind, "options": options})

    def _kv_1(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        match method:
            case "GET" if path in self.secrets:
                return answered(self.secrets[path][-1], kind="kv", lease_duration=MONTH)
            case "GET":
                return errors(404)
            case "DELETE":
                self.secrets.pop(path, None)
                return Reply(204)
            case "POST" | "PUT" if not body:
                raise RequestError("missing data fields")
            case "POST" | "PUT":
                self.secrets[path] = [body]
                return Reply(204)
        return errors(405, "unsupported operation")

    def _kv_2(self, request: Request, mount: str, rest: str, body: dict[str, Any]) -> Reply:
        kind, _, path = rest.partition("/")
        if kind != "data" or not path:
            word = {"GET": "get", "DELETE": "delete"}.get(request.method, "put")
            return answered(None, 404, warnings=[NOT_VERSIONED.format(word)])
        versions = self.secrets.get(f"{mount}/{path}", [])
        match request.method:
            case "GET":
                number = int(request.query.get("version", ["0"])[0]) or len(versions)
                if not 0 < number <= len(versions):
                    return errors(404)
                data = {"data": versions[number - 1], "metadata": _metadata(number)}
                return answered(data, kind="kv")
            case "POST" | "PUT":
                if "data" not in body:
                    raise RequestError("no data provided")
                expected = body.get("options", {}).get("cas")
                if expected not in (None, len(versions)):
                    raise RequestError("check-and-set parameter did not match the current version")
                self.secrets[f"{mount}/{path}"] = [*versions, body["data"]]
                return answered(_metadata(len(versions) + 1), kind="kv")
        return errors(405, "unsupported operation")


@contextmanager
def simulated_vault(tls: ssl.SSLContext | None = None) -> Iterator[SimulatedVault]:
    """Run one while the block runs; `ROOT_TOKEN` may do everything."""
    vault = SimulatedVault()
    with http_server(vault.answer, tls=tls) as vault.url:
        yield vault


def errors(status: int, *texts: str) -> Reply:
    """Refuse as Vault does."""
    return json_reply({"errors": list(texts)}, status)


def no_route(path: str) -> str:
    """Return its words for a path that no engine is mounted at."""
    return f'no handler for route "{path}". route entry not found.'


def answered(
    data: dict[str, Any] | None,
    status: int = 200,
    *,
    kind: str = "",
    lease_duration: int = 0,
    warnings: list[str] | None = None,
    auth: dict[str, Any] | None = None,
) -> Reply:
    """Answer with what Vault puts around the data of every engine."""
    document = {
        "request_id": str(uuid.uuid4()),
        "lease_id": "",
        "renewable": False,
        "lease_duration": lease_duration,
        "data": data,
        "wrap_info": None,
        "warnings": warnings,
        "auth": auth,
        "mount_type": kind,
    }
    return json_reply(document, status)


def json_reply(document: object, status: int = 200) -> Reply:
    """Answer with a document."""
    body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Reply(status, headers, body)


def _metadata(version: int) -> dict[str, Any]:
    return {
        "created_time": "2026-11-26T04:00:00.000000000Z",
        "custom_metadata": None,
        "deletion_time": "",
        "destroyed": False,
        "version": version,
    }
