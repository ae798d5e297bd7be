"""The token that lets its bearer write into a KBS (docs/protocols.md 5.6).

A ready one comes from a file or from the environment; or one is made for each call from the private
key whose public half the KBS trusts, valid for minutes only.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwcrypto.jwk import JWK  # type: ignore[import-untyped]
from jwcrypto.jwt import JWT  # type: ignore[import-untyped]

from coco_kp.errors import KekError
from coco_kp.exposure import exposure
from coco_kp.files import is_there, read_file
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "COCO_KP_ADMIN_TOKEN"
"""The environment variable that may hold a ready token."""

_HOME_FILE: Final = ".trustee/admin-token"  # where Trustee's own client looks, too
_LIMIT: Final = 64 * 1024  # bytes of a token or key file
_LIFETIME: Final = 300  # seconds
_SKEW: Final = 60  # seconds that the two clocks may differ
_KINDS_HINT: Final = "expected Ed25519, EC (P-256, P-384) or RSA"
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")  # RFC 7515

_log = logging.getLogger(__name__)


class AdminToken(Protocol):
    """Whatever can show a KBS that its bearer may write."""

    @property
    def source(self) -> str:
        """Where it comes from, in words, for messages."""

    def bearer(self) -> str:
        """Return the JWT for the Authorization header. Raises ``KekError``."""


def find(
    *,
    token_file: Path | None = None,
    private_key: Path | None = None,
    role: str = "admin",
    issuer: str = "",
    audience: str = "",
    environ: Mapping[str, str] = os.environ,
) -> AdminToken | None:
    """Choose the token: the file or key that the user named, else the environment, else home.

    Without any the answer is None: a KBS that lets everybody write needs none. Raises ``KekError``
    for one that cannot be used, ``ValueError`` if two are named.
    """
    if token_file and private_key:
        raise ValueError("token_file and private_key exclude each other")
    if token_file:
        return ReadyToken.read(token_file)
    if private_key:
        return SigningKey.read(private_key, role=role, issuer=issuer, audience=audience)
    if text := environ.get(VARIABLE, ""):
        return ReadyToken.parse(text, f"the environment ({VARIABLE})")
    home_file = Path(environ.get("HOME", "/nonexistent")) / _HOME_FILE
    return ReadyToken.read(home_file) if is_there(home_file) else None


@dataclass(frozen=True, slots=True)
class ReadyToken:
    """A token that somebody else has made. ``expires`` is in seconds since the epoch."""

    source: str
    _text: str = field(repr=False)
    expires: float

    @classmethod
    def read(cls, file: Path) -> ReadyToken:
        """Take it from a file. Raises ``KekError``."""
        source = shown(str(file))
        return cls.parse(_read_secret(file, "admin token").decode("utf-8", "replace"), source)

    @classmethod
    def parse(cls, text: str, source: str) -> ReadyToken:
        """Take it from a text; the KBS checks it, we only see that it is one. Raises ``KekError``.

        A token without ``exp`` is refused here, because the KBS refuses it without a reason.
        """
        text = text.strip()
        match = _COMPACT.fullmatch(text)
        payload = match[1] if match else ""
        try:
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            expires = float(claims["exp"])
            datetime.fromtimestamp(expires, UTC)  # a moment that can be named
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
            raise KekError(
                f"what {source} holds is not an admin token",
                "expected a signed JWT with the claims exp and role",
                code="admin-token-invalid",
            ) from None
        return cls(source, text, expires)

    def bearer(self) -> str:
        """Return it, unless it has expired by this machine's clock."""
        if self.expires + _SKEW < time.time():
            moment = datetime.fromtimestamp(self.expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            raise KekError(f"the admin token of {self.source} expired on {moment}", "get a new one")
        return self._text


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of which the KBS knows the public half; signs a token for each call."""

    source: str
    role: str
    issuer: str
    audience: str
    _algorithm: str
    _key: JWK = field(repr=False)

    @classmethod
    def read(cls, file: Path, *, role: str, issuer: str = "", audience: str = "") -> SigningKey:
        """Take an Ed25519, EC (P-256, P-384) or RSA key from a PEM file. Raises ``KekError``."""
        pem = _read_secret(file, "private key")
        try:
            private = load_pem_private_key(pem, password=None)
        except TypeError:
            raise KekError(
                f"the private key {shown(str(file))} is encrypted",
                "decrypt it into a file that only you can read: openssl pkey -in KEY -out NEW",
            ) from None
        except ValueError:
            raise KekError(f"{shown(str(file))} is not a PEM private key", _KINDS_HINT) from None
        except UnsupportedAlgorithm:
            private = None
        match private:
            case ed25519.Ed25519PrivateKey():
                algorithm = "EdDSA"
            case rsa.RSAPrivateKey():
                algorithm = "RS256"
            case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
                algorithm = "ES256"
            case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
                algorithm = "ES384"
            case _:
                raise KekError(
                    f"the private key {shown(str(file))} is of a kind that a KBS does not take",
                    _KINDS_HINT,
                )
        return cls(shown(str(file)), role, issuer, audience, algorithm, JWK.from_pyca(private))

    def bearer(self) -> str:
        """Sign a new token, with ``nbf`` a little back for a KBS whose clock is behind."""
        now = int(time.time())
        claims = {"iat": now, "nbf": now - _SKEW, "exp": now + _LIFETIME, "role": self.role}
        claims |= {"iss": self.issuer} if self.issuer else {}
        claims |= {"aud": self.audience} if self.audience else {}
        token = JWT(header={"alg": self._algorithm, "typ": "JWT"}, claims=claims)
        token.make_signed_token(self._key)
        return str(token.serialize())


def _read_secret(path: Path, what: str) -> bytes:
    data, status = read_file(path, _LIMIT, KekError)
    if len(data) > _LIMIT:
        raise KekError(f"the {what} {shown(str(path))} is longer than {_LIMIT // 1024} KiB")
    for warning in exposure(what, path, status):
        _log.warning("%s", warning)
    return data
