"""The plugins of a KBS that are not ``resource``: ``external`` and ``pkcs11``.

Written from Trustee 78962cd4 (kbs/src/plugins/implementations). What ``external`` asks of a gRPC
service is held to a real KBS by tests/replay/test_kbs_plugin.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import grpc

from tests.sim.protobuf import read_fields, write_field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SERVICE: Final = "/kbs.plugin.v1.KbsPlugin/"

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class PluginError(Exception):
    """The KBS answers 401 with ``PluginInternalError``; the text goes into its log alone."""


@dataclass(frozen=True)
class PluginCall:
    """What a plugin is asked; ``path`` is what follows its own name."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes


class Plugin(Protocol):
    """A plugin, as the KBS calls it; each method raises `PluginError`."""

    def needs_admin(self, call: PluginCall) -> bool:
        """Return whether an administrator must ask, and no attested guest."""

    def handle(self, call: PluginCall) -> bytes:
        """Return the answer's body."""

    def needs_encryption(self, call: PluginCall) -> bool:
        """Return whether the answer is to be encrypted to the guest."""


@dataclass
class ExternalPlugin:
    """``external``: hands calls to gRPC services, by the first part of their path."""

    backends: dict[str, grpc.Channel] = field(default_factory=dict)
    timeout: float = 5.0
    """Seconds (``timeout_ms`` of a backend, in thousands)."""
    log: list[str] = field(default_factory=list)

    def connect(self, name: str, endpoint: str, ca: Path | None = None) -> None:
        """Connect to a backend at ``http://…``, or at ``https://…`` with a CA."""
        scheme, _, address = endpoint.partition("://")
        if scheme == "https":
            assert ca is not None, "an https endpoint requires ca_cert_path"
            credentials = grpc.ssl_channel_credentials(ca.read_bytes())
            self.backends[name] = grpc.secure_channel(address, credentials)
        else:
            self.backends[name] = grpc.insecure_channel(address)

    def close(self) -> None:
        for channel in self.backends.values():
            channel.close()

    def needs_admin(self, call: PluginCall) -> bool:
        return self._asked("ValidateAuth", call).get(1) == [1]

    def handle(self, call: PluginCall) -> bytes:
        answer = self._asked("Handle", call)
        (body,), (status,) = answer.get(1, [b""]), answer.get(2, [0])
        assert isinstance(body, bytes)
        assert isinstance(status, int)
        if status != 0 and not 200 <= status < 300:
            shown = body.decode(errors="replace")
            self._fail(f"plugin '{call.path[0]}' returned HTTP status {status}: {shown}")
        return body

    def needs_encryption(self, call: PluginCall) -> bool:
        return self._asked("NeedsEncryption", call).get(1) == [1]

    def _asked(self, method: str, call: PluginCall) -> dict[int, list[bytes | int]]:
        name, path = call.path[0] if call.path else "", call.path[1:]
        if name not in self.backends:
            self._fail(f"external plugin '{name}' not registered")
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.backends[name].unary_unary(
            f"{SERVICE}{method}"
        )
        try:
            return read_fields(ask(request_message(call, path), timeout=self.timeout))
        except grpc.RpcError as error:
            # not its text: Trustee's log has the code alone
            self._fail(f"gRPC error from plugin: {error.code().name}")
        except ValueError as error:
            self._fail(str(error))

    def _fail(self, text: str) -> NoReturn:
        self.log.append(text)
        raise PluginError(text)


def request_message(call: PluginCall, path: tuple[str, ...]) -> bytes:
    """Return the request of any of the three methods: body, query, path, method."""
    query = [
        write_field(1, name.encode()) + write_field(2, value.encode())
        for name, value in call.query.items()
    ]
    return b"".join(
        [
            write_field(1, call.body) if call.body else b"",
            *(write_field(2, entry) for entry in query),
            *(write_field(3, part.encode()) for part in path),
            write_field(4, call.method.encode()),
        ]
    )


@dataclass
class Pkcs11Plugin:
    """``pkcs11``: KEKs as objects of an HSM's session, which end with the KBS."""

    objects: list[tuple[str, bytes]] = field(default_factory=list)
    """Labels (``default/key/1``) and values, the first found first; labels may recur."""

    def needs_admin(self, call: PluginCall) -> bool:
        if call.method not in ("GET", "POST", "DELETE"):
            raise PluginError("invalid method")
        return call.method != "GET"

    def handle(self, call: PluginCall) -> bytes:
        kind, *parts = call.path or ("",)
        if kind != "resource" or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
            raise PluginError("invalid path")
        label = "/".join(parts)
        if call.method == "POST":  # it never replaces
            self.objects.append((label, call.body))
            return b""
        found = [stored for stored in self.objects if stored[0] == label]
        if not found:
            raise PluginError(f"Could not find object with label {label}")
        if call.method == "DELETE":
            self.objects.remove(found[0])
            return b""
        return found[0][1]

    def needs_encryption(self, _call: PluginCall) -> bool:
        return True
