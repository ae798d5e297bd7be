"""ocicrypt's key-provider configuration (docs/protocols.md 2.1).

``OCICRYPT_KEYPROVIDER_CONFIG`` names a file ``{"key-providers": {"<name>": {…}}}``. Go's ocicrypt
uses ``cmd`` before ``grpc`` and ignores every other way to call a provider.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError
from coco_kp.files import read_file
from coco_kp.model.encoding import check_one_reading, member, parse_json_object
from coco_kp.redact import shown
from coco_kp.values import dataclass

VARIABLE: Final = "OCICRYPT_KEYPROVIDER_CONFIG"

MAX_CONFIG: Final = 256 * 1024
"""Bytes of a configuration at the most."""


@dataclass(frozen=True, slots=True)
class CmdProvider:
    """A program that answers one request on its standard input and output."""

    path: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Return how a user would name it."""
        return f"the command {' '.join((self.path, *self.arguments))}"


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """How a server is called with TLS: ``grpc-tls`` of ocicrypt 1.3, as that reads it.

    Files are PEM; what is empty was not given. Without ``root_ca_file`` the system's roots are
    trusted. Only with both, ``cert_file`` and ``key_file``, does the client show a certificate:
    ocicrypt passes over one alone. ``server_name`` is to be in the server's certificate in place of
    the address's own.
    """

    root_ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the object that `parse_ocicrypt_config` reads."""
        members = {member: getattr(self, name) for name, member in _TLS_MEMBERS.items()}
        return {member: text for member, text in members.items() if text}


_TLS_MEMBERS: Final = {
    "root_ca_file": "root-ca-file",
    "cert_file": "cert-file",
    "key_file": "key-file",
    "server_name": "server-name",
}
_SKIP_VERIFY: Final = "insecure-skip-verify"


@dataclass(frozen=True, slots=True)
class GrpcProvider:
    """A server at ``host:port`` or ``unix:///path``, called with TLS or without."""

    address: str
    tls: GrpcTls | None = None

    def __str__(self) -> str:
        """Return how a user would name it."""
        return f"the server at {self.address}"


def read_ocicrypt_config() -> tuple[str, dict[str, CmdProvider | GrpcProvider]]:
    """Return the path that the variable holds, and the providers of that file by name.

    Raises ``InputError``.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise InputError(
            f"{VARIABLE} is not set: no provider is known",
            code="providers-unknown",
            variable=VARIABLE,
        )
    # A file that is missing or malformed is silently no provider to ocicrypt.
    try:
        data = read_file(Path(path), MAX_CONFIG).data
    except InputError as error:
        raise error.adding(f"{VARIABLE} names it") from None
    return path, parse_ocicrypt_config(data, f"the key-provider configuration {shown(path)}")


def parse_ocicrypt_config(
    data: bytes, what: str = "the key-provider configuration"
) -> dict[str, CmdProvider | GrpcProvider]:
    """Read a configuration: each provider by name. Raises ``InputError``."""
    document = parse_json_object(data, what, MAX_CONFIG)
    check_one_reading(document, ("key-providers",), what)
    providers = member(document, "key-providers", dict, what)
    if not providers:
        raise InputError(f"{what} names no provider")
    return {name: _provider(name, attributes) for name, attributes in providers.items()}


def _provider(name: str, attributes: object) -> CmdProvider | GrpcProvider:
    what = f"provider {shown(name)}"
    if not isinstance(attributes, dict):
        raise InputError(f"{what} is not an object")
    check_one_reading(attributes, ("cmd", "grpc", "grpc-tls"), what)
    # Go takes null for a member that is not there.
    if attributes.get("cmd") is not None:
        cmd = member(attributes, "cmd", dict, what)
        check_one_reading(cmd, ("path", "args"), f"'cmd' of {what}")
        arguments = cmd.get("args") or []
        if not isinstance(arguments, list) or not all(isinstance(a, str) for a in arguments):
            raise InputError(f"'args' of {what} is not an array of strings")
        return CmdProvider(member(cmd, "path", str, f"'cmd' of {what}"), tuple(arguments))
    if attributes.get("grpc"):
        address = member(attributes, "grpc", str, what)
        return GrpcProvider(address, _tls(attributes.get("grpc-tls"), f"'grpc-tls' of {what}"))
    raise InputError(
        f"{what} has neither 'cmd' nor 'grpc'",
        'ocicrypt calls providers no other way: {"grpc": "127.0.0.1:50000"} or '
        '{"cmd": {"path": "/usr/bin/coco-kp", "args": ["keyprovider"]}}',
    )


def _tls(members: object, what: str) -> GrpcTls | None:
    if members is None:
        return None
    if not isinstance(members, dict):
        raise InputError(f"{what} is not an object")
    check_one_reading(members, (*_TLS_MEMBERS.values(), _SKIP_VERIFY), what)
    texts = {name: members.get(member) or "" for name, member in _TLS_MEMBERS.items()}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InputError(f"'{_TLS_MEMBERS[name]}' of {what} is not text")
    if members.get(_SKIP_VERIFY) not in (None, False):
        raise InputError(
            f"{what} has {_SKIP_VERIFY}: whoever answers would get the layers' keys",
            "name the CA of the server's certificate with root-ca-file instead, and the name in it "
            "with server-name",
        )
    return GrpcTls(**texts)
