"""ocicrypt's key-provider configuration (docs/protocols.md 2.1).

``OCICRYPT_KEYPROVIDER_CONFIG`` names a file ``{"key-providers": {"<name>": {…}}}``. Go's ocicrypt
uses ``cmd`` before ``grpc`` and ignores every other way to call a provider.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, shown
from coco_kp.files import read_file
from coco_kp.model.encoding import check_one_reading, member, parse_json_object

VARIABLE: Final = "OCICRYPT_KEYPROVIDER_CONFIG"

MAX_CONFIG: Final = 256 * 1024
"""Bytes of a configuration at the most."""


@dataclass(frozen=True, slots=True)
class CmdProvider:
    """A program that answers one request on its standard input and output."""

    path: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Give the words in which a user would name it."""
        return f"the command {' '.join((self.path, *self.arguments))}"


@dataclass(frozen=True, slots=True)
class GrpcProvider:
    """A server at ``host:port`` or ``unix:///path``, called with TLS or without."""

    address: str
    tls: bool = False

    def __str__(self) -> str:
        """Give the words in which a user would name it."""
        return f"the server at {self.address}"


def read_ocicrypt_config() -> tuple[str, dict[str, CmdProvider | GrpcProvider]]:
    """Return the path that the variable holds, and the providers of that file by name.

    Raises ``InputError``.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise InputError(
            f"{VARIABLE} is not set: no provider is known",
            f"coco-kp config --grpc 127.0.0.1:50000 -o ocicrypt.json, then export {VARIABLE}",
        )
    # A file that is missing or malformed is silently no provider to ocicrypt.
    return path, parse_ocicrypt_config(read_file(Path(path), MAX_CONFIG).data)


def parse_ocicrypt_config(data: bytes) -> dict[str, CmdProvider | GrpcProvider]:
    """Read a configuration: each provider by name. Raises ``InputError``."""
    what = "the key-provider configuration"
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
    if "cmd" in attributes:
        cmd = member(attributes, "cmd", dict, what)
        check_one_reading(cmd, ("path", "args"), f"'cmd' of {what}")
        arguments = cmd.get("args") or []
        if not isinstance(arguments, list) or not all(isinstance(a, str) for a in arguments):
            raise InputError(f"'args' of {what} is not an array of strings")
        return CmdProvider(member(cmd, "path", str, f"'cmd' of {what}"), tuple(arguments))
    if "grpc" in attributes:
        return GrpcProvider(member(attributes, "grpc", str, what), "grpc-tls" in attributes)
    raise InputError(
        f"{what} has neither 'cmd' nor 'grpc'",
        'ocicrypt calls providers no other way: {"grpc": "127.0.0.1:50000"} or '
        '{"cmd": {"path": "/usr/bin/coco-kp", "args": ["keyprovider"]}}',
    )
