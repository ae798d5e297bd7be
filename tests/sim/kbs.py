"""A KBS in this process, of protocol 0.4.0, that fails as it is told.

Written from docs/protocols.md 5 with none of our own code, so that no mistake in ours can hide in
it: report data, key agreement and content encryption are computed here from primitives.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.sim.http_server import BreakOff, Reply, Request, http_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

ADMIN_TOKEN: Final = "e30.eyJleHAiOjQwMDAwMDAwMDAsInJvbGUiOiJhZG1pbiJ9.c2ln"  # exp in 2096
CURVES: Final = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}
PREFIX: Final = "/kbs/v0/"


@dataclass
class SimulatedKbs:
    """What the KBS has and how it behaves; a test may change both at any time."""

    url: str = ""
    version: str = "0.4.0"
    resources: dict[str, bytes] = field(default_factory=dict)
    denies: bool = False
    """Whether its resource policy denies everybody."""
    faults: dict[str, Callable[[Request], Reply | None]] = field(default_factory=dict)
    """Asked first, by ``METHOD path`` (``GET resource/a/b/c``); after None it answers as ever."""
    breaks: dict[str, int] = field(default_factory=dict)
    """How many connections to break off in the middle of a request, by ``METHOD path``."""
    requests: list[Request] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    """Nonces by session id."""
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)
    """Attested public keys by token."""

    def calls(self, name: str) -> int:
        """Count the requests ``METHOD path`` that arrived."""
        return sum(_name(r.method, r.path) == name for r in self.requests)

    def answer(self, request: Request) -> Reply:
        """Answer as a KBS does."""
        self.requests.append(request)
        name = _name(request.method, request.path)
        if (fault := self.faults.get(name)) and (reply := fault(request)):
            return reply
        match request.method, request.path.removeprefix(PREFIX).split("/"):
            case "POST", ["auth"]:
                return self._auth(json.loads(request.body))
            case "POST", ["attest"]:
                return self._attest(request, json.loads(request.body))
            case "GET", ["resource-policy"]:
                return self._admin(request) or json_reply(["resource-policy"])
            case "GET", ["resource", *path]:
                return self._resource(request, "/".join(path))
            case "POST", ["resource", *path]:
                refused = self._admin(request)
                if not refused:
                    self.resources["/".join(path)] = request.body
                return refused or Reply()
            case "DELETE", ["resource", *path]:
                found = self.resources.pop("/".join(path), None)
                return Reply() if found is not None else refusal("PluginInternalError")
        return Reply(404)

    def _auth(self, document: dict[str, Any]) -> Reply:
        if document["version"] != self.version:
            detail = f"expect ={self.version} while the request is {document['version']}"
            return refusal("AttestationError", f"Version Mismatch: {detail}")
        session, nonce = os.urandom(16).hex(), base64.b64encode(os.urandom(32)).decode()
        self.sessions[session] = nonce
        reply = json_reply({"nonce": nonce, "extra-params": ""})
        return Reply(
            headers={"Set-Cookie": f"kbs-session-id={session}; Expires=x"}, body=reply.body
        )

    def _attest(self, request: Request, document: dict[str, Any]) -> Reply:
        session = request.headers["Cookie"].removeprefix("kbs-session-id=")
        runtime, evidence = document["runtime-data"], document["tee-evidence"]
        if runtime["nonce"] != self.sessions[session]:
            return refusal("AttestationError", "nonce mismatch")
        bound = {"additional-evidence": evidence["additional_evidence"]} | runtime
        text = json.dumps(bound, sort_keys=True, separators=(",", ":"))
        digest = base64.b64encode(hashlib.sha384(text.encode()).digest()).decode()
        if evidence["primary_evidence"] != {"svn": "1", "report_data": digest}:
            return refusal("AttestationError", "report data mismatch")
        token = f"e30.e30.{os.urandom(8).hex()}"
        self.tokens[token] = runtime["tee-pubkey"]
        return json_reply({"token": token})

    def _resource(self, request: Request, path: str) -> Reply:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return refusal("TokenNotFound", "Attestation Token not found")
        if self.denies:
            return refusal("PolicyDeny", "Access denied by policy")
        if path not in self.resources:
            return refusal("PluginInternalError", "Plugin internal error")
        return json_reply(encrypt(self.resources[path], self.tokens[token]))

    def _admin(self, request: Request) -> Reply | None:
        if request.headers.get("Authorization") == f"Bearer {ADMIN_TOKEN}":
            return None
        detail = "failed to initialize [admin] configuration: Admin access denied: bad token"
        return refusal("AdminAuthInitialization", detail)


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


def refusal(variant: str, detail: str = "", status: int = 401) -> Reply:
    """Refuse as a KBS does (docs/protocols.md 5.2)."""
    kind = f"https://github.com/confidential-containers/kbs/errors/{variant}"
    return json_reply({"type": kind, "detail": detail}, status)


def json_reply(document: object, status: int = 200) -> Reply:
    return Reply(status, body=json.dumps(document, separators=(",", ":")).encode())


def encrypt(plain: bytes, public: dict[str, str], **more: object) -> dict[str, str]:
    """Encrypt a resource to a public key: a flattened JWE (docs/protocols.md 5.5).

    A real one has no header members but its own; ``more`` adds some.
    """
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
    """Give base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _name(method: str, path: str) -> str:
    return f"{method} {path.removeprefix(PREFIX)}"
