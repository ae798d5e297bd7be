"""Connections that bound what urllib3 leaves open, and logs without queries."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from collections.abc import Iterator

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

READ_TIMEOUT = 60.0
"""Seconds that one read or write may stall, and that the head of an answer may take in all."""


class _Bounded(HTTPConnection):
    """Bounds what urllib3 does not: it limits single reads, of which a peer can make many.

    Connecting with its TLS handshake, and the head of an answer, take no longer than their timeout
    in all.
    """

    def connect(self) -> None:
        self._handles: list[socket.socket] = []
        try:
            with _within(self.timeout, self._handles):
                super().connect()
        finally:
            for handle in self._handles:
                handle.close()
        # The connect timeout would otherwise go on to bound each write.
        self.sock.settimeout(READ_TIMEOUT)

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        # A handle of our own: TLS takes the socket itself over before the handshake.
        self._handles.append(sock.dup())
        return sock

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        with _within(self.timeout, [self.sock]):
            return super().getresponse()


class _BoundedTls(_Bounded, HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        # urllib3 warns at each unverified connection; the client has said so once.
        self.is_verified = True


class HttpPool(HTTPConnectionPool):
    """Kept connections to one host."""

    ConnectionCls = _Bounded


class HttpsPool(HTTPSConnectionPool):
    """Kept TLS connections to one host."""

    ConnectionCls = _BoundedTls


@contextlib.contextmanager
def _within(seconds: object, sockets: list[socket.socket]) -> Iterator[None]:
    """Shut ``sockets`` down when the block takes longer, and raise ``TimeoutError`` from it."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    watchdog = threading.Timer(seconds if isinstance(seconds, float) else READ_TIMEOUT, expire)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    except Exception:
        if expired.is_set():
            raise TimeoutError from None
        raise
    finally:
        watchdog.cancel()
    if expired.is_set():
        raise TimeoutError


def _without_query(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"\?[^\s\"')]*", "?…", record.getMessage()), None
    record.exc_info = None
    return True


# urllib3 logs request targets; the queries of signed URLs are credentials.
logging.getLogger("urllib3.connectionpool").addFilter(_without_query)
logging.getLogger("urllib3.connection").addFilter(_without_query)
