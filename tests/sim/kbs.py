"""A KBS in this process, of protocol 0.4.0, that fails as it is told.

Written from docs/protocols.md 5 with none of our own code, so that no mistake in ours can hide in
it: report data, key agreement and content encryption are computed here from primitives. Held to the
real one by tests/replay/test_kbs_simulator.py. Tokens are not signed: it knows those that it made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.sim.http_server import BreakOff, Reply, Request, http_server
from tests.sim.kbs_plugins import ExternalPlugin, Pkcs11Plugin, Plugin, PluginCall, PluginError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADMIN_TOKEN: Final = "e30.eyJleHAiOjQwMDAwMDAwMDAsInJvbGUiOiJhZG1pbiJ9.c2ln"  # exp in 2096
CURVES: Final = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}
ALGORITHMS: Final = {"EC": "ECDH-ES+A256KW", "RSA": "RSA-OAEP-256"}
JWK_MEMBERS: Final = {"EC": {"kty", "alg", "crv", "x", "y"}, "RSA": {"kty", "alg", "n", "e"}}
"""What a KBS reads of a TEE's public key: it hashes nothing else."""
TEES: Final = (
    *("az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "hygondcu", "nvidia", "sample", "sampledevice"),
    *("se", "sgx", "snp", "tdx", "tpm"),
)
PREFIX: Final = "/kbs/v0/"
METHODS: Final = ("GET", "POST", "PUT", "DELETE")
MOST_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a body at the most; ``payload_request_size`` unless it is configured."""

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass
class Session:
    """What a KBS remembers of a client between two requests; ``token`` once it was attested."""

    nonce: str
    tee: str = "sample"
    token: str = ""


@dataclass
class SimulatedKbs:
    """What the KBS has and how it behaves; a test may change both at any time."""

    url: str = ""
    version: str = "0.4.0"
    resources: dict[str, bytes] = field(default_factory=dict)
    plugins: dict[str, Plugin] = field(default_factory=dict)
    """Its further plugins by name; `with_pkcs11` and `with_external` add those of Trustee."""
    denies: bool = False
    """Whether its resource policy denies everybody."""
    denied: set[str] = field(default_factory=set)
    """What its resource policy denies to everybody: plugin and path (``external/coco-kp/prod``)."""
    admins: Literal["by token", "anybody", "nobody"] = "by token"
    """Its ``authorization_mode``."""
    roles: dict[str, str] = field(default_factory=lambda: {ADMIN_TOKEN: "admin"})
    """Roles by admin token; ``admin`` may do everything, and an empty one is missing."""
    faults: dict[str, Callable[[Request], Reply | None]] = field(default_factory=dict)
    """Asked first, by ``METHOD path`` (``GET resource/a/b/c``); after None it answers as ever."""
    breaks: dict[str, int] = field(default_factory=dict)
    """How many connections to break off in the middle of a request, by ``METHOD path``."""
    requests: list[Request] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    """By the ID in their cookie."""
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)
    """Attested public keys by token, of those tokens that it believes."""

    def calls(self, name: str) -> int:
        """Count the requests ``METHOD path`` that arrived."""
        return sum(_name(r.method, r.path) == name for r in self.requests)

    def answer(self, request: Request) -> Reply:
        """Answer as a KBS does."""
        self.requests.append(request)
        name = _name(request.method, request.path)
        if (fault := self.faults.get(name)) and (reply := fault(request)):
            return reply
        if not request.path.startswith(PREFIX):
            return Reply(404)
        if request.method not in METHODS:
            return Reply(405, {"Allow": ", ".join(METHODS)})
        if len(request.body) > MOST_BYTES:
            kind = {"Content-Type": "text/plain; charset=utf-8"}
            return Reply(413, kind, b"payload reached size limit")
        return self._route(request)

    def with_pkcs11(self) -> Pkcs11Plugin:
        """Add the plugin that keeps KEKs in an HSM."""
        self.plugins["pkcs11"] = plugin = Pkcs11Plugin()
        return plugin

    def with_external(self, name: str, endpoint: str, ca: Path | None = None) -> ExternalPlugin:
        """Add, or add to, the plugin that hands calls to a gRPC service (``http://host:port``)."""
        plugin = self.plugins.setdefault("external", ExternalPlugin())
        assert isinstance(plugin, ExternalPlugin)
        plugin.connect(name, endpoint, ca)
        return plugin

    def _route(self, request: Request) -> Reply:
        plugin, *path = unquote(request.path.removeprefix(PREFIX)).split("/")
        match request.method, plugin:
            case "POST", "auth":
                return self._auth(_document(request))
            case "POST", "attest":
                return self._attest(request, _document(request))
            case "GET", "resource-policy":
                return self._access(request, plugin) or json_reply([plugin])
            case "POST", "resource-policy" | "attestation-policy":  # taken without a look
                return self._access(request, plugin) or Reply()
            case "POST" | "DELETE", "resource":
                return self._write(request, path)
            case _, "resource":
                return self._read(request, path)
            case _, name if name in self.plugins:
                return self._plugged(request, name, path)
        return refusal("PluginNotFound", f"Plugin {plugin} not found", 404)

    def _auth(self, document: dict[str, Any]) -> Reply:
        failed = "Attestation error: RCAR handshake Auth failed"
        if not document.keys() >= {"version", "tee", "extra-params"} or document["tee"] not in TEES:
            return refusal("AttestationError", f"{failed}: deserialize Request")
        version = document["version"]
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            return refusal("AttestationError", f"{failed}: failed to parse KBS version")
        if version != self.version:
            detail = f"expect ={self.version} while the request is {version}"
            mismatch = "KBS Client Protocol Version Mismatch"
            return refusal("AttestationError", f"{failed}: {mismatch}: {detail}")
        if document["tee"] == "se":
            what = "Attestation Service generate challenge failed"
            return refusal("AttestationError", f"{failed}: {what}")
        session, nonce = os.urandom(16).hex(), base64.b64encode(os.urandom(32)).decode()
        self.sessions[session] = Session(nonce, document["tee"])
        return json_reply({"nonce": nonce, "extra-params": ""}, cookie=session)

    def _attest(self, request: Request, document: dict[str, Any]) -> Reply:
        cookie, session = self._session(request)
        if session is None or not (session.token or _is_proven(session, document)):
            return refusal("AttestationError", "Attestation error: RCAR handshake Attest failed")
        if not session.token:
            session.token = f"e30.e30.{os.urandom(8).hex()}"
            self.tokens[session.token] = document["runtime-data"]["tee-pubkey"]
        return json_reply({"token": session.token}, cookie=cookie)

    def _session(self, request: Request) -> tuple[str, Session | None]:
        cookie = request.headers.get("Cookie", "").removeprefix("kbs-session-id=")
        return cookie, self.sessions.get(cookie)

    def _read(self, request: Request, path: list[str]) -> Reply:
        public = self._attested(request, ["resource", *path])
        if isinstance(public, Reply):
            return public
        resource = self.resources.get("/".join(path))
        if request.method != "GET" or resource is None:
            return refusal("PluginInternalError", "Plugin internal error")
        return _encrypted(resource, public)

    def _attested(self, request: Request, path: list[str]) -> dict[str, str] | Reply:
        """Return the key of an attested guest that may read, or the refusal."""
        _, session = self._session(request)
        if not (token := (session and session.token) or _bearer(request)):
            return refusal("TokenNotFound", "Attestation Token not found")
        if not (public := self.tokens.get(token)):
            return refusal("TokenVerifierError", "Token Verifier error")
        if self.denies or "/".join(path) in self.denied:
            return refusal("PolicyDeny", "Access denied by policy")
        return public

    def _plugged(self, request: Request, name: str, path: list[str]) -> Reply:
        """Have a plugin answer, in Trustee's order of questions."""
        query = {key: values[-1] for key, values in request.query.items()}
        call = PluginCall(request.method, tuple(path), query, request.body)
        plugin = self.plugins[name]
        try:
            if plugin.needs_admin(call):
                return self._forbidden(request) or _shown(plugin.handle(call))
            public = self._attested(request, [name, *path])
            if isinstance(public, Reply):
                return public
            body = plugin.handle(call)
            return _encrypted(body, public) if plugin.needs_encryption(call) else _shown(body)
        except PluginError:
            return refusal("PluginInternalError", "Plugin internal error")

    def _forbidden(self, request: Request) -> Reply | None:
        """Refuse who is no administrator."""
        if reason := self._reason_against(request):
            detail = f"failed to initialize [admin] configuration: {reason}"
            return refusal("AdminAuthInitialization", detail)
        return None

    def _write(self, request: Request, path: list[str]) -> Reply:
        if forbidden := self._forbidden(request):
            return forbidden
        name = "/".join(path)
        if request.method == "POST" and len(path) == 3 and all(map(_PART.fullmatch, path)):
            self.resources[name] = request.body
        elif request.method == "POST" or self.resources.pop(name, None) is None:
            return refusal("PluginInternalError", "Plugin internal error")
        return _shown(b"")

    def _access(self, request: Request, endpoint: str) -> Reply | None:
        reason = self._reason_against(request)
        detail = f"admin access denied for endpoint {endpoint}: {reason}"
        return refusal("AdminAuthAccess", detail) if reason else None

    def _reason_against(self, request: Request) -> str:
        """Return why who sent a request is no administrator; nothing if it is one."""
        denied, token = "Admin access denied", _bearer(request)
        if self.admins == "anybody":
            return ""
        if self.admins == "nobody":
            return f"{denied}: {denied} as DenyAll authorization_mode is enabled"
        if not token:
            return "Failed to parse HTTP Auth Bearer header"
        match self.roles.get(token):
            case None:
                return f"{denied}: Cannot verify token with any of the issuers"
            case "":
                claims = 'AdminAccessDenied { reason: "Missing required `role` claim in JWT" }'
                return f"{denied}: Failed to parse claims from token: {claims}"
            case "admin":
                return ""
            case role:
                return f"{denied}: Role {role} not allowed for path {request.path}"


@contextmanager
def simulated_kbs(tls: ssl.SSLContext | None = None) -> Iterator[SimulatedKbs]:
    """Run one while the block runs."""
    kbs = SimulatedKbs()

    def fault(method: str, path: str) -> BreakOff | None:
        if not kbs.breaks.get(_name(method, path)):
            return None
        kbs.breaks[_name(method, path)] -= 1
        return BreakOff(take=16)

    with http_server(kbs.answer, tls=tls, fault=fault) as kbs.url:
        yield kbs
    if isinstance(external := kbs.plugins.get("external"), ExternalPlugin):
        external.close()


def refusal(variant: str, detail: str = "", status: int = 401) -> Reply:
    """Refuse as a KBS does (docs/protocols.md 5.2)."""
    kind = f"https://github.com/confidential-containers/kbs/errors/{variant}"
    return Reply(status, body=_json({"type": kind, "detail": detail}))


def _shown(body: bytes) -> Reply:
    return Reply(headers={"Content-Type": "text/xml"}, body=body)


def _encrypted(resource: bytes, public: dict[str, str]) -> Reply:
    try:
        return json_reply(encrypt(resource, public))
    except (KeyError, ValueError):
        return refusal("JweError", "JWE failed")


def json_reply(document: object, status: int = 200, *, cookie: str = "") -> Reply:
    """Answer with a document, and with the cookie of a session."""
    headers = {"Content-Type": "application/json"}
    if cookie:
        headers["Set-Cookie"] = f"kbs-session-id={cookie}; Expires=Thu, 26 Nov 2099 00:00:00 GMT"
    return Reply(status, headers, _json(document))


def encrypt(plain: bytes, public: dict[str, str], **more: object) -> dict[str, str]:
    """Encrypt a resource to a public key: a flattened JWE (docs/protocols.md 5.5).

    A real one has no header members but its own; ``more`` adds some. Raises ``ValueError`` or
    ``KeyError`` for a key that it cannot encrypt to.
    """
    if public["alg"] != ALGORITHMS[public["kty"]]:
        raise ValueError(public["alg"])
    cek, iv = os.urandom(32), os.urandom(12)
    header: dict[str, Any] = {"alg": public["alg"], "enc": "A256GCM"} | more
    if public["kty"] == "RSA":
        n, e = (int.from_bytes(decode(public[name])) for name in "ne")
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        wrapped = rsa.RSAPublicNumbers(e, n).public_key().encrypt(cek, oaep)
    else:
        curve = CURVES[public["crv"]]
        ephemeral = ec.generate_private_key(curve)
        x, y = (int.from_bytes(decode(public[name])) for name in "xy")
        peer = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        wrapped = aes_key_wrap(wrapping_key(ephemeral.exchange(ec.ECDH(), peer)), cek)
        point, size = ephemeral.public_key().public_numbers(), (curve.key_size + 7) // 8
        header["epk"] = {"crv": public["crv"], "kty": "EC"} | {
            "x": encode(point.x.to_bytes(size)),
            "y": encode(point.y.to_bytes(size)),
        }
    return seal(plain, header, wrapped, cek, iv)


def seal(
    plain: bytes, header: dict[str, Any], wrapped: bytes, cek: bytes, iv: bytes
) -> dict[str, str]:
    """Encrypt the content; the header as it is sent is the additional data."""
    protected = encode(json.dumps(header, separators=(",", ":")).encode())
    sealed = AESGCM(cek).encrypt(iv, plain, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": encode(wrapped),
        "iv": encode(iv),
        "ciphertext": encode(sealed[:-16]),
        "tag": encode(sealed[-16:]),
    }


def wrapping_key(shared: bytes) -> bytes:
    """Derive the key that wraps the content key, by the Concat KDF of RFC 7518, 4.6.2."""
    algorithm = b"ECDH-ES+A256KW"
    info = len(algorithm).to_bytes(4) + algorithm + bytes(4) + bytes(4) + (256).to_bytes(4)
    return ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _is_proven(session: Session, document: dict[str, Any]) -> bool:
    """Return whether the evidence of a sample TEE binds the session's nonce and the public key."""
    try:
        runtime, evidence = document["runtime-data"], document["tee-evidence"]
        key = runtime["tee-pubkey"]
        known = {name: key[name] for name in JWK_MEMBERS[key["kty"]]}
        additional, primary = evidence["additional_evidence"], evidence["primary_evidence"]
        bound = {"additional-evidence": additional, "nonce": runtime["nonce"], "tee-pubkey": known}
        text = json.dumps(bound, sort_keys=True, separators=(",", ":"))
        digest = base64.b64encode(hashlib.sha384(text.encode()).digest()).decode()
        proven = bool(primary == {"svn": "1", "report_data": digest})
    except KeyError:
        return False
    return proven and session.tee == "sample" and runtime["nonce"] == session.nonce


def _bearer(request: Request) -> str:
    """Return the bearer's token; the word before it is case-sensitive."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""


def _document(request: Request) -> dict[str, Any]:
    """Return the object in a request's body; an empty one if there is none."""
    try:
        found = json.loads(request.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _name(method: str, path: str) -> str:
    return f"{method} {path.removeprefix(PREFIX)}"
