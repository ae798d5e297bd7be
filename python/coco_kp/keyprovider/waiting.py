"""Calls that wait for their client: for the request to arrive, or for the answer to be taken.

A client that begins calls and sends nothing, or has no room for what it asked for, costs a thread
or a place for each. So there is room for so many of them, and for so long: where one more waits,
the one that has waited longest ends. Whoever means it sends the request together with the call, and
waits for no time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import grpc

from coco_kp.keyprovider.peer import client_of
from coco_kp.observe import event

MOST: Final = 256
"""Calls that wait at a time."""

LONGEST: Final = 10.0
"""Seconds that one waits."""

Behavior = Callable[[bytes, grpc.ServicerContext], bytes]
"""Answers the one message of a request with the one of the answer."""


class Waiting:
    """The calls of a server that wait; threads share it."""

    def __init__(
        self,
        most: int = MOST,
        longest: float = LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._longest, self._clock = most, longest, clock
        self._lock = threading.Lock()
        self._since: dict[grpc.ServicerContext, float] = {}  # who has waited longest is first

    def handler(self, behavior: Behavior) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return what answers a call by ``behavior``, and has it wait here.

        For gRPC it is a stream of requests, of which one is read: the same on the wire, but told of
        a call before its request has come.
        """
        return grpc.stream_unary_rpc_method_handler(partial(self._answer, behavior))

    def look(self) -> None:
        """End those that have waited too long; to be called now and then."""
        while (context := self._pop_longest(self._clock() - self._longest)) is not None:
            _end(context)

    def _answer(
        self, behavior: Behavior, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> bytes:
        self._begin(context)
        try:
            request = next(requests, None)
        finally:
            self._leave(context)
        if request is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "a call has one request, this had none")
        try:
            return behavior(request, context)
        finally:
            self._begin(context)
            if not context.add_callback(partial(self._leave, context)):
                self._leave(context)  # it has ended meanwhile

    def _begin(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._since[context] = self._clock()
            crowded = len(self._since) > self._most
        if crowded and (longest := self._pop_longest()) is not None:
            _end(longest)

    def _leave(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._since.pop(context, None)

    def _pop_longest(self, before: float | None = None) -> grpc.ServicerContext | None:
        """Take out the call that has waited longest, if it has since ``before``."""
        with self._lock:
            context = next(iter(self._since), None)
            if context is None or (before is not None and self._since[context] > before):
                return None
            del self._since[context]
            return context


def _end(context: grpc.ServicerContext) -> None:
    # Only the thread that waits could say why, so the client sees CANCELLED.
    context.cancel()
    event(logging.INFO, "stalled", client=str(client_of(context)))
