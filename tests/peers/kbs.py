"""Trustee's KBS, the broker of the KBC ``cc``, on loopback, for one test alone."""

from __future__ import annotations

import json
import subprocess
import time
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from .daemon import daemon
from .folder import folder_peer, peer_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .daemon import Daemon

Mode = Literal["http", "tls", "open"]
"""``http``, ``tls``: admin tokens with roles. ``open``: whoever asks may write."""

ISSUER: Final = "peer-admin"
AUDIENCE: Final = "kbs-admin"

YEAR: Final = 365 * 24 * 3600
"""In seconds."""


@dataclass(frozen=True)
class RunningKbs:
    """A real Trustee KBS, its keys and tokens in ``folder``."""

    daemon: Daemon
    url: str
    folder: Path

    @property
    def admin_token(self) -> Path:
        """A token that may do everything, valid for long."""
        return self.folder / "admin-token"

    @property
    def admin_key(self) -> Path:
        """The Ed25519 key whose signature the KBS trusts, of issuer ``peer-admin``."""
        return self.folder / "admin.key"

    @property
    def ca(self) -> Path:
        """Its own certificate authority, in mode ``tls``."""
        return self.folder / "ca.crt"

    def kill(self) -> None:
        """End it at once, as a loss of power does."""
        self.daemon.process.kill()
        self.daemon.process.wait()

    def client(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Trustee's own client; give what it did, whatever that was."""
        certificate = ["--cert-file", str(self.ca)] if self.ca.exists() else []
        command: list[str | Path] = [
            folder_peer("kbs-client"),
            "--url",
            self.url,
            *certificate,
            *arguments,
        ]
        return subprocess.run(
            command,
            env=peer_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def configure(self, *arguments: str | Path) -> str:
        """Run ``kbs-client config`` as the administrator; it must succeed."""
        done = self.client("config", "--admin-token-file", self.admin_token, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def allow_all(self) -> None:
        """Let everybody who was attested read: the built-in policy refuses the sample attester."""
        self.configure("set-resource-policy", "--allow-all")

    def deny_all(self) -> None:
        """Let nobody read."""
        self.configure("set-resource-policy", "--deny-all")


@contextmanager
def kbs(folder: Path, mode: Mode = "http", port: str = "0") -> Iterator[RunningKbs]:
    """Run a Trustee KBS of protocol 0.4.0 that accepts the sample attester's evidence.

    On the same folder it has what it had before. A port is only given to take an old one's place.
    """
    state = folder / "kbs"
    state.mkdir(parents=True, exist_ok=True)
    _write_admin(state)
    if mode == "tls":
        _write_certificates(state)
    config = state / "kbs.toml"
    config.write_text(_config(state, mode, port))
    command: list[str | Path] = [folder_peer("kbs"), "--config-file", config]
    with daemon(command, folder / "kbs.log", peer_environment()) as running:
        _, _, port = running.address().partition(":")
        url = f"https://localhost:{port}" if mode == "tls" else f"http://127.0.0.1:{port}"
        yield RunningKbs(running, url, state)


def _write_admin(folder: Path) -> None:
    """Write the key that the KBS trusts, unless one is there, and tokens that it signed."""
    file, public = folder / "admin.key", folder / "admin.pub"
    if not file.exists():
        made = Ed25519PrivateKey.generate()
        _write_secret(file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        shown = made.public_key()
        public.write_bytes(shown.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    key = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        return  # a test's own key, for tokens of its own
    for name, role, seconds in (
        ("admin-token", "kbs-admin", YEAR),
        ("reader-token", "reader", YEAR),
        ("expired-token", "kbs-admin", -3600),
    ):
        _write_secret(folder / name, f"{_token(key, role, seconds)}\n".encode())


def _token(key: Ed25519PrivateKey, role: str, seconds: int) -> str:
    """Return a JWT (RFC 7519, RFC 8037) that expires in so many seconds."""
    now = int(time.time())
    who = {"iss": ISSUER, "aud": AUDIENCE, "sub": "admin", "role": role}
    parts = ({"alg": "EdDSA", "typ": "JWT"}, who | {"iat": now, "exp": now + seconds})
    text = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
    return b".".join([text, _base64url(key.sign(text))]).decode()


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _write_certificates(folder: Path) -> None:
    """Write the certificates of an authority and of the KBS, unless they are there."""
    if (folder / "ca.crt").exists():
        return
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    issued = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(folder / "ca.crt")
    (folder / "tls.crt").write_bytes(issued.cert_chain_pems[0].bytes())
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_secret(folder / "tls.key", pkcs8)


def _write_secret(file: Path, data: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(data)


def _config(folder: Path, mode: Mode, port: str) -> str:
    """Return its configuration; it does not start where that names a file that is not there."""
    http = "insecure_http = true"
    if mode == "tls":
        http = f"""\
insecure_http = false
private_key = "{folder}/tls.key"
certificate = "{folder}/tls.crt"
"""
    admin = 'authorization_mode = "InsecureAllowAll"'
    if mode != "open":
        admin = f"""\
authorization_mode = "AuthenticatedAuthorization"
[admin.authentication.bearer_jwt]
identity_providers = [
    {{ issuer = "{ISSUER}", audience = "{AUDIENCE}", public_key_uri = "{folder}/admin.pub" }},
]
[admin.authorization.regex_acl]
acls = [{{ role = "kbs-admin", allowed_endpoints = "^/kbs/v0/.+$" }}]
"""
    return f"""\
[http_server]
sockets = ["127.0.0.1:{port}"]
worker_count = 2
{http}
[attestation_token]
insecure_header_jwk = true
[attestation_service]
type = "coco_as_builtin"
timeout = 5
[attestation_service.attestation_token_broker]
duration_min = 5
[attestation_service.rvps_config]
type = "BuiltIn"
[admin]
{admin}
[storage_backend]
storage_type = "LocalFs"
[storage_backend.backends.local_fs]
dir_path = "{folder}/data"
[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
"""
