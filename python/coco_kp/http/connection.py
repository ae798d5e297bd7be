"""Connections that bound what urllib3 leaves open, and logs without queries."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from coco_kp.deadline import Alarm

READ_TIMEOUT = 60.0
"""Seconds that one read or write may stall, and that the head of an answer may take in all."""


class _Bounded(HTTPConnection):
    """Bounds what urllib3 does not: each write of a body, and a head that trickles in.

    (The TLS handshake is bounded as a whole by Python itself.)
    """

    def connect(self) -> None:
        super().connect()
        # The connect timeout would otherwise go on to bound each write.
        self.sock.settimeout(READ_TIMEOUT)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        limit = self.timeout if isinstance(self.timeout, int | float) else READ_TIMEOUT
        shutdown, expired = self.sock.shutdown, threading.Event()

        def expire() -> None:
            expired.set()
            with contextlib.suppress(OSError):
                shutdown(socket.SHUT_RDWR)

        watchdog = Alarm(limit, expire)
        try:
            response = super().getresponse()
        except Exception:
            if expired.is_set():
                raise TimeoutError from None
            raise
        finally:
            watchdog.off()
        if expired.is_set():
            response.close()
            raise TimeoutError
        return response


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


def mask_logs() -> None:
    """Take the queries of targets out of what urllib3 logs: those of signed URLs are credentials.

    Not when this is imported, but once there is something to log: a program's log is its own.
    """
    for name in ("urllib3.connectionpool", "urllib3.connection"):
        logging.getLogger(name).addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    record.msg, record.args = re.sub(r"\?[^\s\"')]*", "?…", record.getMessage()), None
    record.exc_info = None
    return True
