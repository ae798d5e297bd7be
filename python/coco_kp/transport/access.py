"""How a registry is reached: skopeo's ``--creds``, ``--authfile``, ``--cert-dir`` and so on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coco_kp.errors import InputError
from coco_kp.unpacking import FREE


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or an identity token (OAuth2 refresh token) in its stead."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    origin: str = field(default="", compare=False)
    """Where they are from, for messages: an option, a file, a helper."""


@dataclass(frozen=True, slots=True)
class Access:
    """The options of one side of a copy; without any, the user's own files decide.

    ``authfile`` is read instead of those files, ``cert_dir`` instead of the ``certs.d`` folders.
    ``tls_verify=False`` accepts any certificate, and plain http where there is no TLS at all.
    Compressed archives and layers may unpack to so much more than :mod:`coco_kp.unpacking` allows
    for their size: ``max_unpacked`` bytes. ``retries`` is how often in a row a registry may fail
    before it is given up.
    """

    credentials: Credentials | None = None
    authfile: Path | None = None
    cert_dir: Path | None = None
    tls_verify: bool = True
    max_unpacked: int = FREE
    retries: int = 4


def parse_credentials(text: str, origin: str = "") -> Credentials:
    """Read ``user:password``; ``origin`` says where it is from. Raises ``InputError``, unquoted."""
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise InputError("expected credentials as 'user:password'")
    return Credentials(username, password, origin=origin)
