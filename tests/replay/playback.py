"""A server that gives recorded answers in the order in which they were recorded."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.replay.recording import Recorded, body
from tests.sim.http_server import BreakOff, Reply, Request, http_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Playback:
    """What was asked of a server that plays exchanges; ``url`` is where it answers."""

    def __init__(self, exchanges: Sequence[Recorded]) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self._exchanges = exchanges
        self._answers = deque(exchange["answer"] for exchange in exchanges)

    def answer(self, request: Request) -> Reply | BreakOff:
        """Return the next answer; hang up behind the last."""
        self.requests.append(request)
        if not self._answers:
            return BreakOff()
        answer = self._answers.popleft()
        return Reply(answer["status"], answer["headers"], body(answer) or b"")

    def assert_asked_as_recorded(self) -> None:
        """Compare all requests with the recorded ones: target, recorded headers and body."""
        expected = [exchange["request"] for exchange in self._exchanges]
        assert [(request.method, target(request)) for request in self.requests] == [
            (request["method"], request["path"]) for request in expected
        ]
        for asked, recorded in zip(self.requests, expected, strict=True):
            assert asked.body == (body(recorded) or b"")
            for name in ("Content-Type", "Authorization", "Cookie"):
                assert asked.headers.get(name) == recorded["headers"].get(name)


@contextmanager
def playing(exchanges: Sequence[Recorded]) -> Iterator[Playback]:
    """Play exchanges on loopback while the block runs."""
    playback = Playback(exchanges)
    with http_server(playback.answer) as playback.url:
        yield playback


def target(request: Request) -> str:
    """Return path and query as they stood in the request."""
    return request.path + (f"?{urlencode(request.query, doseq=True)}" if request.query else "")
