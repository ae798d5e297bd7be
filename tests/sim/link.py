"""A link that breaks: each connection ends after so many bytes from the client."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def breaking_link(target: str, limit: int) -> Iterator[str]:
    """Forward connections to ``target`` (``host:port``) while the block runs; give ``host:port``.

    A connection over which ``limit`` bytes went to the target is closed without a word; until then
    it may serve any number of requests. The target has dealt with what came before the client
    learns of the break: in life, the client's pause is there for that.
    """
    host, _, port = target.rpartition(":")
    links: list[_Connection] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                links.append(_Connection(client, server, limit))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for link in links:
                link.close()


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket, limit: int) -> None:
        self._client, self._server, self._left = client, server, limit
        self._threads = [
            threading.Thread(target=way, daemon=True) for way in (self._there, self._back)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def _there(self) -> None:
        with contextlib.suppress(OSError):
            while self._left and (data := self._client.recv(min(4096, self._left))):
                self._server.sendall(data)
                self._left -= len(data)
            self._server.shutdown(socket.SHUT_WR)

    def _back(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(4096):
                if self._left:
                    self._client.sendall(data)
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
