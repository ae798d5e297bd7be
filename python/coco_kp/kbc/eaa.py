"""``eaa``: lets Verdictd open the packet; the KEK never leaves it.

Verdictd speaks JSON over TLS and proves itself, if at all, by a quote in a certificate that is new
for every connection. That quote is not verified here, so nothing tells who answers: beyond loopback
the KBC is refused unless the owner of this machine accepts that.
Source: docs/protocols.md 4 (eaa).
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
from typing import TYPE_CHECKING, Final

from coco_kp.deadline import Alarm, remaining, within
from coco_kp.errors import InputError, RefusedError, RemoteError, UnreachableError
from coco_kp.files import reason
from coco_kp.http import is_loopback
from coco_kp.model.host_port import HostPort
from coco_kp.model.verdictd import MAX_ANSWER, decrypt_request, parse_decrypted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coco_kp.kbc.kbcs import Kbc
    from coco_kp.model.packet import AnnotationPacket

DEADLINE: Final = 30.0
"""Seconds for connecting, asking and the answer together."""


class EaaKbc:
    """The KBC of guests whose broker decrypts for them."""

    def __init__(self, address: HostPort, deadline: float = DEADLINE) -> None:
        self._address = address
        self._deadline = deadline

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Let Verdictd open the packet. Raises ``KekError``, ``RemoteError``."""
        return parse_decrypted(self._ask(decrypt_request(packet)), packet)

    def close(self) -> None:
        """No-op: Verdictd is connected to for each packet."""

    def _ask(self, request: bytes) -> bytes:
        """Send one record and receive one."""
        with within(self._deadline):
            return self._exchange(request)

    def _exchange(self, request: bytes) -> bytes:
        address = (self._address.host, self._address.port)
        try:
            with (
                socket.create_connection(address, timeout=_left()) as plain,
                _interruptible(plain),
                _tls().wrap_socket(_bounded(plain)) as connection,
            ):
                _bounded(connection).sendall(request)
                answer: bytes = _bounded(connection).recv(MAX_ANSWER)
        except OSError as error:
            raise self._failure(error) from None
        if not answer:
            if not remaining():
                raise self._late
            raise RemoteError(
                f"{self._name} closed the connection without an answer",
                "it does so where the key's file is not 32 bytes long; see its log",
            )
        return answer

    def _failure(self, error: OSError) -> RemoteError:
        if isinstance(error, TimeoutError) or not remaining():
            return self._late
        if isinstance(error, ssl.SSLError):
            what = (error.reason or "the connection was closed").replace("_", " ").lower()
            return RemoteError(f"no TLS with {self._name}: {what}")
        return UnreachableError(
            f"{self._name} cannot be reached: {reason(error)}",
            "check host and port, and whether Verdictd runs",
        )

    @property
    def _late(self) -> UnreachableError:
        return UnreachableError(f"{self._name} did not answer in time")

    @property
    def _name(self) -> str:
        return f"Verdictd at {self._address}"


def eaa_kbc(address: str, *, allow_unverified: bool = False) -> Kbc:
    """Make the KBC of guests whose broker decrypts for them.

    Args:
        address: ``host:port`` of Verdictd.
        allow_unverified: Let it talk to a Verdictd beyond loopback, though nothing proves who
            answers there.

    Raises:
        InputError: The address is malformed.
        RefusedError: The address is beyond loopback, and that is not allowed.
    """
    if not address:
        raise InputError("KBC 'eaa' needs the address of Verdictd", "write eaa_kbc::host:port")
    place = HostPort.parse(address, "the address of Verdictd")
    if not is_loopback(place.host) and not allow_unverified:
        raise RefusedError(
            f"nothing proves that it is Verdictd that answers at {place}",
            "whoever sits in between would read the layer keys that it sends back, and so the "
            "image",
            code="verdictd-unproven",
        )
    return EaaKbc(place)


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # see the module's docstring
    return context


@contextlib.contextmanager
def _interruptible(connection: socket.socket) -> Iterator[None]:
    """End the connection as soon as nobody waits for it."""
    with connection.dup() as same:  # TLS takes the other descriptor over

        def end() -> None:
            with contextlib.suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        with Alarm(math.inf, end):
            yield


def _bounded(connection: socket.socket) -> socket.socket:
    """Let the next step take what is left of the time."""
    connection.settimeout(_left())
    return connection


def _left() -> float:
    return max(0.001, remaining())  # 0 would mean not to wait at all
