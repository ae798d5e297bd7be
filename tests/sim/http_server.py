"""A small HTTP server that answers from a function, and can break off as real servers do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from urllib3 import HTTPHeaderDict


@dataclass(frozen=True)
class Request:
    """What arrived. ``body`` is whole unless the client broke off (``complete`` is false)."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    complete: bool
    port: int = 0
    """The client's: one of each connection."""


@dataclass(frozen=True)
class Reply:
    """What goes back; ``truncate`` closes the connection after that many bytes of the body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncate: int | None = None
    delay: float = 0.0
    """Seconds between two pieces of the body."""


@dataclass(frozen=True)
class BreakOff:
    """Close the connection without an answer.

    A fault takes that many bytes of the request's body first; ``kept`` lets the answering function
    have them, as a registry keeps the part of an upload that came.
    """

    take: int = 0
    kept: bool = False


Answer = Callable[[Request], Reply | BreakOff]
Fault = Callable[[str, str], BreakOff | None]
"""Called with method and path before the body is read."""


@contextmanager
def http_server(
    answer: Answer,
    *,
    tls: ssl.SSLContext | None = None,
    fault: Fault = lambda _method, _path: None,
    port: int = 0,
) -> Iterator[str]:
    """Serve on loopback while the block runs, and give the base URL."""

    class Handler(_Handler):
        pass

    Handler.answer, Handler.fault = staticmethod(answer), staticmethod(fault)
    server = _Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scheme = "http" if tls is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        server.hang_up()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """Break off every connection, as the end of a real server's process does."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent about clients that went away: the client's side is what tests look at."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Answer
    fault: Fault

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        broken = self.fault(self.command, url.path)
        body, complete = self._body(broken.take if broken else None)
        query = parse_qs(url.query, keep_blank_values=True)
        port = self.client_address[1]
        request = Request(self.command, url.path, query, self._headers(), body, complete, port)
        reply = self.answer(request) if broken is None or broken.kept else broken
        if broken is None and isinstance(reply, Reply):
            self._send(reply)
        else:
            self._hang_up()

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""

    def _headers(self) -> Mapping[str, str]:
        return HTTPHeaderDict(self.headers.items())

    def _body(self, limit: int | None) -> tuple[bytes, bool]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunked(limit)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length if limit is None else min(limit, length))
        return body, len(body) == length

    def _chunked(self, limit: int | None) -> tuple[bytes, bool]:
        body = bytearray()
        while limit is None or len(body) < limit:
            line = self.rfile.readline()
            if not line:
                return bytes(body), False
            size = int(line, 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return bytes(body), True
        return bytes(body), False

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        names = {name.lower() for name in reply.headers}
        if not names & {"content-length", "transfer-encoding"}:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = reply.body if reply.truncate is None else reply.body[: reply.truncate]
        if reply.delay:
            for position in range(len(body)):
                self.wfile.write(body[position : position + 1])
                time.sleep(reply.delay)
        else:
            self.wfile.write(body)
        if reply.truncate is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
