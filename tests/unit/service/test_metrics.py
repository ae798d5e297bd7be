"""Metrics: made of events, and scraped over HTTP as Prometheus does."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coco_kp.errors import CocoKpError, KekError, RemoteError
from coco_kp.keyprovider.address import TcpAddress
from coco_kp.keyprovider.call import Call
from coco_kp.observe import asking, event, observed_by
from coco_kp.provider import Provider
from coco_kp.service.audit import open_audit_log
from coco_kp.service.calls import answer
from coco_kp.service.metrics import _MOST_SCRAPES, Metrics, serve_metrics
from tests.support import ocicrypt
from tests.support.patience import wait_until
from tests.vectors import load_vectors

GCM = next(vector for vector in load_vectors("packets")["good"] if vector["name"] == "gcm")
WRAP = Call(ocicrypt.wrap_request("sample=true", GCM["optsdata"].encode()), "keywrap")
LOOPBACK = TcpAddress(ip_address("127.0.0.1"), 0)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics("1.2.3", dropped=lambda: 7)
    with observed_by(made):
        yield made


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_calls_are_counted_by_operation_and_code(metrics: Metrics) -> None:
    assert value(metrics, "coco_kp_calls_total", operation="keywrap", code="OK") == 0
    answer(Provider(), WRAP)
    answer(Provider(), WRAP)
    for call in (Call(b"{}", "keyunwrap"), Call(b"{}")):
        with pytest.raises(CocoKpError):
            answer(Provider(), call)
    count = partial(value, metrics, "coco_kp_calls_total")
    assert count(operation="keywrap", code="OK") == 2
    assert count(operation="keyunwrap", code="INVALID_ARGUMENT") == 1
    assert count(operation="call", code="INVALID_ARGUMENT") == 1
    assert value(metrics, "coco_kp_call_seconds_count", operation="keywrap") == 2


def test_calls_at_work_are_counted_while_they_are(
    metrics: Metrics,
) -> None:
    seen: list[float | None] = []

    class Broken(Provider):
        def wrap(self, *_: object) -> NoReturn:
            seen.append(value(metrics, "coco_kp_calls_in_flight"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        answer(Broken(), WRAP)
    assert seen == [1]
    assert value(metrics, "coco_kp_calls_in_flight") == 0
    assert value(metrics, "coco_kp_calls_total", operation="keywrap", code="INTERNAL") == 1


def test_requests_to_others_are_counted_by_kind_and_outcome(metrics: Metrics) -> None:
    with asking("kbs"):
        pass
    for error in (RemoteError("down"), KekError("denied")):
        with pytest.raises(type(error)), asking("vault"):
            raise error
    count = partial(value, metrics, "coco_kp_requests_total")
    assert count(to="kbs", outcome="ok") == 1
    assert count(to="vault", outcome="unreachable") == 1
    assert count(to="vault", outcome="refused") == 1
    assert value(metrics, "coco_kp_request_seconds_count", to="vault") == 2


def test_states_are_those_last_reported(metrics: Metrics) -> None:
    assert value(metrics, "coco_kp_ready") == 0
    event(20, "readiness", outcome="ready")
    event(20, "certificate", expires=1.8e9)
    event(20, "unaudited", message="the disk is full")
    assert value(metrics, "coco_kp_ready") == 1
    assert value(metrics, "coco_kp_certificate_expiry_timestamp_seconds") == 1.8e9
    assert value(metrics, "coco_kp_audit_failures_total") == 1
    assert value(metrics, "coco_kp_log_lines_dropped_total") == 7
    assert value(metrics, "coco_kp_build_info", version="1.2.3") == 1
    event(30, "readiness", outcome="not ready", message="KBS: down")
    assert value(metrics, "coco_kp_ready") == 0


def test_audit_log_that_cannot_be_opened_anew_is_counted(metrics: Metrics, tmp_path: Path) -> None:
    file = tmp_path / "audit"
    log = open_audit_log(str(file), required=False)
    file.unlink()
    file.mkdir()
    log.reopen()
    assert value(metrics, "coco_kp_audit_failures_total") == 1


def test_no_label_is_what_a_caller_chose(metrics: Metrics) -> None:
    request = ocicrypt.wrap_request("keypath=/no-such::keyid=/mine/key/1", GCM["optsdata"].encode())
    with pytest.raises(CocoKpError):
        answer(Provider(), Call(request, "keywrap"))
    names = {
        label
        for family in metrics.registry.collect()
        for sample in family.samples
        for label in sample.labels
    }
    assert names == {"operation", "code", "to", "outcome", "version", "le"}
    text, _ = scrape(metrics)
    assert "mine" not in text
    assert "no-such" not in text


def scrape(metrics: Metrics, path: str = "/metrics", **headers: str) -> tuple[str, str]:
    """Return the text and its type."""
    url = f"http://{serve_metrics(metrics.registry, LOOPBACK)}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        assert response.headers["Server"] == "coco-kp"
        return response.read().decode(), response.headers["Content-Type"]


def test_scrape_gives_what_prometheus_reads(metrics: Metrics) -> None:
    answer(Provider(), WRAP)
    text, kind = scrape(metrics)
    assert kind.startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["coco_kp_calls"].type == "counter"
    assert families["coco_kp_call_seconds"].type == "histogram"
    assert families["process_resident_memory_bytes"].samples[0].value > 0
    openmetrics, kind = scrape(metrics, Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert openmetrics.endswith("# EOF\n")


def test_other_paths_are_not_found(metrics: Metrics) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        scrape(metrics, "/")
    assert error.value.code == 404
    error.value.close()


def test_port_that_is_taken_is_refused_with_words(metrics: Metrics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = TcpAddress(ip_address("127.0.0.1"), taken.getsockname()[1])
        with pytest.raises(RemoteError, match=f"cannot serve metrics on {address}: "):
            serve_metrics(metrics.registry, address)


def test_connections_beyond_the_bound_are_closed(metrics: Metrics) -> None:
    host, _, port = serve_metrics(metrics.registry, LOOPBACK).rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(_MOST_SCRAPES + 5)]
    try:
        wait_until(lambda: sum(map(is_closed, silent)) == 5)
    finally:
        for connection in silent:
            connection.close()


def test_scrapes_for_which_there_was_no_thread_keep_no_later_ones_out(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = serve_metrics(metrics.registry, LOOPBACK).rpartition(":")
    with monkeypatch.context() as patch:
        patch.setattr("socketserver.threading.Thread.start", no_thread)
        for _ in range(_MOST_SCRAPES):
            with socket.create_connection((host, int(port))) as refused:
                assert refused.recv(1) == b""
    assert served(host, int(port))


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_metrics_ask_no_dns_for_the_name_of_this_machine(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("it may take seconds"))
    serve_metrics(metrics.registry, LOOPBACK)


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\n"])
def test_connections_that_end_no_request_keep_no_scraper_out_for_ever(
    metrics: Metrics, said: bytes
) -> None:
    """Nor do they by a byte of it now and then."""
    address = serve_metrics(metrics.registry, LOOPBACK, patience=0.2)
    host, _, port = address.rpartition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(_MOST_SCRAPES)]
    try:
        for connection in slow:
            connection.sendall(said)

        def served_beside_bytes() -> bool:
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x" if said else b"")
            return served(host, int(port))

        wait_until(served_beside_bytes)
    finally:
        for connection in slow:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def served(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics") as response:
            return bool(response.status == 200)
    except OSError:
        return False
