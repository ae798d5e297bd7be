"""``eaa``: lets Verdictd open the packet; the KEK never leaves it.

Verdictd speaks JSON over TLS and proves itself, if at all, by a quote in a certificate that is new
for every connection. That quote is not verified here, so nothing tells who answers: beyond loopback
the KBC is refused unless the owner of this machine accepts that.
Source: docs/protocols.md 4 (eaa).
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, RefusedError, RemoteError, UnreachableError
from coco_kp.files import reason
from coco_kp.http import is_loopback
from coco_kp.model.host_port import HostPort
from coco_kp.model.verdictd import MAX_ANSWER, decrypt_request, parse_decrypted

if TYPE_CHECKING:
    from coco_kp.kbc import KbcSettings
    from coco_kp.model.kbc_spec import KbcSpec
    from coco_kp.model.packet import AnnotationPacket

DEADLINE: Final = 30.0
"""Seconds for connecting, asking and the answer together."""


class EaaKbc:
    """The KBC of guests whose broker decrypts for them."""

    def __init__(self, address: HostPort) -> None:
        self._address = address

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Let Verdictd open the packet. Raises ``KekError``, ``RemoteError``."""
        return parse_decrypted(self._ask(decrypt_request(packet)), packet)

    def _ask(self, request: bytes) -> bytes:
        """Send one record and receive one."""
        end = time.monotonic() + DEADLINE
        address = (self._address.host, self._address.port)
        try:
            with (
                socket.create_connection(address, timeout=DEADLINE) as plain,
                _tls().wrap_socket(_within(plain, end)) as connection,
            ):
                _within(connection, end).sendall(request)
                answer: bytes = _within(connection, end).recv(MAX_ANSWER)
        except TimeoutError:
            raise UnreachableError(f"{self._name} did not answer within {DEADLINE:.0f} s") from None
        except ssl.SSLError as error:
            what = (error.reason or "the connection was closed").replace("_", " ").lower()
            raise RemoteError(f"no TLS with {self._name}: {what}") from None
        except OSError as error:
            raise UnreachableError(
                f"{self._name} cannot be reached: {reason(error)}",
                "check host and port, and whether Verdictd runs",
            ) from None
        if not answer:
            raise RemoteError(
                f"{self._name} closed the connection without an answer",
                "it does so where the key's file is not 32 bytes long; see its log",
            )
        return answer

    @property
    def _name(self) -> str:
        return f"Verdictd at {self._address}"


def open_kbc(spec: KbcSpec, settings: KbcSettings) -> EaaKbc:
    """Make it for the address in ``spec``. Raises ``InputError``, ``RefusedError``."""
    if not spec.uri:
        raise InputError("KBC 'eaa' needs the address of Verdictd", "write eaa_kbc::host:port")
    address = HostPort.parse(spec.uri, "the address of Verdictd")
    if not is_loopback(address.host) and not settings.eaa_allow_unverified:
        raise RefusedError(
            f"nothing proves that it is Verdictd that answers at {address}",
            "whoever sits in between would read the layer keys that it sends back, and so the "
            "image; --eaa-allow-unverified accepts that",
        )
    return EaaKbc(address)


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # see the module's docstring
    return context


def _within(connection: socket.socket, end: float) -> socket.socket:
    """Let the next step take what is left of the time."""
    connection.settimeout(max(0.001, end - time.monotonic()))
    return connection
