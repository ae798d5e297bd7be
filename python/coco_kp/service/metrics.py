"""Prometheus metrics, made of the events that the rest of the code reports (docs/operations.md).

No label holds what a caller chooses: neither key IDs nor names of clients.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from coco_kp.errors import RemoteError
from coco_kp.files import reason
from coco_kp.keyprovider.address import TcpAddress

PATH: Final = "/metrics"

_OPERATIONS: Final = ("keywrap", "keyunwrap")
_CALL_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0)
_REQUEST_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_PATIENCE: Final = 10.0
"""Seconds for a whole scrape: one that says or takes a byte now and then keeps no other out."""
_MOST_SCRAPES: Final = 16
"""At a time; a connection beyond them is closed."""


class Metrics:
    """Counts events; an observer of them. It has a registry of its own, and no other metrics.

    ``dropped`` says how many log lines were dropped so far.
    """

    def __init__(self, version: str, dropped: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        Info("coco_kp_build", "The version that runs.", registry=registry).info(
            {"version": version}
        )
        self._calls = Counter(
            "coco_kp_calls",
            "Calls that have ended, by operation and gRPC status.",
            ("operation", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "coco_kp_call_seconds",
            "Seconds from a call's arrival to its answer.",
            ("operation",),
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge("coco_kp_calls_in_flight", "Calls at work.", registry=registry)
        self._requests = Counter(
            "coco_kp_requests",
            "Requests to others: a KBS, a store or KMS, key files; ok, refused or unreachable.",
            ("to", "outcome"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "coco_kp_request_seconds",
            "Seconds that requests to others took.",
            ("to",),
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._ready = Gauge(
            "coco_kp_ready", "Whether all that is needed of others can be had.", registry=registry
        )
        self._unaudited = Counter(
            "coco_kp_audit_failures",
            "Calls that could not be recorded, and audit logs that could not be opened anew.",
            registry=registry,
        )
        self._expiry = Gauge(
            "coco_kp_certificate_expiry_timestamp_seconds",
            "When the server's certificate ends, in seconds since 1970; 0 without TLS.",
            registry=registry,
        )
        registry.register(_DroppedLines(dropped))
        ProcessCollector(registry=registry)
        for operation in _OPERATIONS:
            self._calls.labels(operation, "OK")
            self._seconds.labels(operation)

    def __call__(self, name: str, fields: Mapping[str, str | float]) -> None:
        """Count an event."""
        match name:
            case "began":
                self._in_flight.inc()
            case "answered" | "refused" | "bug":
                self._in_flight.dec()
                operation = str(fields["method"])
                self._calls.labels(operation, str(fields["code"])).inc()
                self._seconds.labels(operation).observe(float(fields["seconds"]))
            case "asked":
                to = str(fields["name"])
                self._requests.labels(to, str(fields["outcome"])).inc()
                self._request_seconds.labels(to).observe(float(fields["seconds"]))
            case "readiness":
                self._ready.set(fields["outcome"] == "ready")
            case "unaudited":
                self._unaudited.inc()
            case "certificate":
                self._expiry.set(float(fields["expires"]))


class _DroppedLines(Collector):
    """A counter that is kept elsewhere."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "coco_kp_log_lines_dropped",
            "Log lines that were dropped rather than waited for.",
            value=self._dropped(),
        )


def serve_metrics(
    registry: CollectorRegistry, address: TcpAddress, patience: float = _PATIENCE
) -> str:
    """Serve the metrics over HTTP until the process ends; return the address with its port.

    Raises ``RemoteError`` if nobody can listen there.
    """
    try:
        server = _Server(address, registry, patience)
    except OSError as failure:
        raise RemoteError(
            f"cannot serve metrics on {address}: {reason(failure)}", "choose another address"
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return str(TcpAddress(address.ip, server.server_address[1]))


class _Server(ThreadingHTTPServer):
    """Answers scrapes, a few at a time."""

    daemon_threads = True

    def __init__(self, address: TcpAddress, registry: CollectorRegistry, patience: float) -> None:
        self._patience = patience
        self.address_family = address.family
        self.registry = registry
        self._ends: dict[socket.socket, float] = {}
        super().__init__((str(address.ip), address.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as typeshed)
        if len(self._ends) < _MOST_SCRAPES:
            self._ends[request] = time.monotonic() + self._patience
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """Forget it, too: each one ends here, even where no thread was to be had for it."""
        try:
            super().shutdown_request(request)
        finally:
            self._ends.pop(request, None)

    def server_bind(self) -> None:
        """Bind without asking the DNS for this machine's name, as HTTPServer does."""
        TCPServer.server_bind(self)

    def service_actions(self) -> None:
        """Cut off, twice a second, whose time is over."""
        for request, end in tuple(self._ends.items()):
            if time.monotonic() > end:
                with contextlib.suppress(OSError):  # it has just ended
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing of a scraper that has gone."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Name the program, without Python's version."""
        return "coco-kp"

    def log_message(self, *_: object) -> None:
        """Say nothing of scrapes."""
