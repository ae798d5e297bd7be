"""Answers: a status, headers, and a body that is read in bounds."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import math
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import urllib3

from coco_kp.deadline import Alarm
from coco_kp.errors import InputError, RemoteError, UnreachableError
from coco_kp.http.failure import LATER, failure
from coco_kp.http.url import parse_target

SAID_LIMIT = 8192
"""Bytes read of an answer that is only quoted in an error."""

QUOTE_LIMIT = 300
"""Characters of the other side's words in one message."""


class Response:
    """An answer: ``status`` and ``headers`` are here, the body waits to be read.

    A context manager: leaving it closes the connection, or keeps it if the body was read to its
    end. Any read may raise :class:`UnreachableError`: the body ended early, stalled, or took
    longer than the deadline.
    """

    def __init__(
        self,
        raw: urllib3.BaseHTTPResponse,
        request: str,
        url: str,
        credentials: tuple[str, ...],
    ) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.url = url
        self.request = request
        self._raw = raw
        self._credentials = credentials
        self._loaded: io.BytesIO | None = None
        self._late = False
        try:
            self._watchdog = Alarm(math.inf, self._expire)
        except OSError as error:
            raw.close()
            raise failure(self.request, error) from None

    @property
    def ok(self) -> bool:
        """Whether the other side did as asked: registries differ in which 2xx they answer."""
        return 200 <= self.status < 300

    @property
    def outcome(self) -> str:
        """The status for people, such as ``404 Not Found``."""
        with contextlib.suppress(ValueError):
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        return str(self.status)

    @property
    def location(self) -> str:
        """The absolute URL of the ``Location`` header; :class:`RemoteError` if there is none."""
        try:
            return parse_target(urljoin(self.url, self.headers["Location"])).url
        except (KeyError, InputError, ValueError):
            raise RemoteError(f"{self.request}: {self.outcome} without a usable Location") from None

    def load(self, limit: int) -> None:
        """Read the body now, up to ``limit`` bytes and one; what reads it later raises nothing."""
        self._loaded = io.BytesIO(self._up_to(limit + 1))

    def read(self, size: int) -> bytes:
        """Read what is there, up to ``size`` bytes; ``b""`` at the end of the body."""
        if self._loaded is not None:
            return self._loaded.read(size)
        try:
            data = self._raw.read1(size)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            self.close()
            self._check_deadline()
            raise failure(self.request, exc) from None
        self._check_deadline()
        if not data:
            self.close()
        return data

    def document(self, limit: int) -> bytes:
        """Read the whole body, which must not be longer than ``limit`` bytes, and close."""
        data = self._up_to(limit + 1)
        if len(data) > limit:
            raise RemoteError(f"{self.request}: the answer is longer than {limit} bytes")
        return data

    def said(self, limit: int = QUOTE_LIMIT) -> str:
        """Return the body's start for an error message, printable, ``limit`` characters; close."""
        with contextlib.suppress(RemoteError):
            return self.quote(self._up_to(SAID_LIMIT).decode(errors="replace"), limit)
        return ""

    def quote(self, text: str, limit: int = QUOTE_LIMIT) -> str:
        """Make a text of the other side fit for a message, without credentials of this request."""
        for credential in self._credentials:
            text = text.replace(credential, "***")
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= limit else f"{text[:limit]}…"

    def close(self) -> None:
        """Release the connection for reuse if the body is read to its end, else close it."""
        self._watchdog.off()
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            if self._raw.length_remaining == 0:
                self._raw.read1(1)  # lets urllib3 see the end, and keep the connection
        if self._raw.connection is not None:
            self._raw.close()
            self._raw.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _up_to(self, size: int) -> bytes:
        data = bytearray()
        with self:
            while len(data) < size and (piece := self.read(size - len(data))):
                data += piece
        return bytes(data)

    def _check_deadline(self) -> None:
        if self._late:
            self.close()
            raise UnreachableError(f"{self.request}: the answer took too long", LATER)

    def _expire(self) -> None:
        self._late = True
        # RuntimeError, ValueError: the connection went back to its pool just now; leave it alone.
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            self._raw.shutdown()


def credentials_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Everything secret in request headers, in each form in which an answer might repeat it."""
    found = []
    for name, value in headers.items():
        if name.lower() == "cookie":
            found += [pair.partition("=")[2] for pair in value.split("; ")]
        if name.lower() == "authorization":
            secret = value.partition(" ")[2] or value
            found.append(secret)
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):  # Basic, RFC 7617
                found.append(base64.b64decode(secret, validate=True).decode().partition(":")[2])
    return tuple(secret for secret in found if secret)
