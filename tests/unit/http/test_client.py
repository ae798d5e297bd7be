"""The HTTP client against a server that answers as told."""

from __future__ import annotations

import base64
import errno
import gzip
import itertools
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from coco_kp import deadline
from coco_kp.deadline import within
from coco_kp.errors import InputError, RefusedError, RemoteError, UnreachableError
from coco_kp.http import HttpClient, Retry, Tls, client, connection
from tests.sim.http_server import BreakOff, Reply, Request, http_server
from tests.support.patience import ends

SECRET = "c0ffee-secret"

LATE = "took too long|no answer in time"
"""Which of the two depends on how soon the head of the answer came."""


def trickle(peer: socket.socket, byte: bytes) -> None:
    """Send a byte now and then, until the client hangs up."""
    while True:
        peer.sendall(byte)
        time.sleep(0.05)


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def http(pauses: list[float]) -> Iterator[HttpClient]:
    with HttpClient(plain_http="loopback", sleep=pauses.append) as client:
        yield client


def in_turn(*replies: Reply | BreakOff) -> Callable[[Request], Reply | BreakOff]:
    rest = list(replies)
    return lambda _request: rest.pop(0) if len(rest) > 1 else rest[0]


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that writes to the socket itself, for answers that are not HTTP as it should be."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        try:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                answer(peer)
        except OSError:
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join()


class TestExchange:
    def test_http_client_sends_request_and_returns_response(self, http: HttpClient) -> None:
        seen = []

        def answer(request: Request) -> Reply:
            seen.append(request)
            return Reply(201, {"X-Thing": "here"}, b"done")

        with http_server(answer) as base:
            response = http.request("POST", f"{base}/a/b?c=d", headers={"X-H": "v"}, body=b"data")
            assert (response.status, response.headers["x-thing"]) == (201, "here")
            assert response.outcome == "201 Created"
            assert response.document(10) == b"done"
        (request,) = seen
        assert (request.method, request.path, request.query) == ("POST", "/a/b", {"c": ["d"]})
        assert (request.body, request.headers["x-h"]) == (b"data", "v")

    @pytest.mark.parametrize("first", [1, 2])
    def test_http_client_without_a_thread_for_its_deadline_says_so(
        self, http: HttpClient, monkeypatch: pytest.MonkeyPatch, first: int
    ) -> None:
        """The first alarm bounds the head of an answer, the second all of it."""
        asked = itertools.count(1)

        class Refused(deadline._Clock):
            def set(self, alarm: deadline.Alarm, end: float) -> None:
                if next(asked) == first:
                    raise OSError(errno.EAGAIN, "the system gives no further thread")
                super().set(alarm, end)

        with http_server(lambda _request: Reply()) as url, within(60):
            monkeypatch.setattr(deadline, "_clock", Refused())
            with pytest.raises(UnreachableError, match="gives no further thread") as caught:
                http.request("GET", url)
        assert caught.value.hint == "allow this user or container more processes"

    @pytest.mark.parametrize("length", [None, 6])
    def test_http_client_streams_request_body(self, http: HttpClient, length: int | None) -> None:
        headers = {} if length is None else {"Content-Length": str(length)}
        with http_server(lambda r: Reply(body=r.body + str(r.complete).encode())) as base:
            pieces = iter([b"ab", b"cd", b"ef"])
            response = http.request("PATCH", base, headers=headers, body=pieces)
            assert response.document(100) == b"abcdefTrue"

    def test_http_client_reads_body_in_pieces(self, http: HttpClient) -> None:
        with (
            http_server(lambda _: Reply(body=bytes(100_000))) as base,
            http.request("GET", base) as response,
        ):
            sizes = []
            while piece := response.read(4096):
                sizes.append(len(piece))
        assert sum(sizes) == 100_000
        assert max(sizes) <= 4096

    def test_http_client_does_not_decompress_body(self, http: HttpClient) -> None:
        """A digest is of that, and a little packed can be much."""
        packed = gzip.compress(bytes(10_000_000))
        reply = Reply(headers={"Content-Encoding": "gzip"}, body=packed)
        with http_server(lambda _: reply) as base:
            assert http.request("GET", base).document(20_000) == packed

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_http_client_reuses_connection_after_body_was_read(
        self, http: HttpClient, method: str
    ) -> None:
        with http_server(lambda _: Reply(body=b"" if method == "HEAD" else b"x")) as base:
            for _ in range(3):
                with http.request(method, base) as response:
                    if method == "GET":
                        response.document(1)
            (pools,) = http._connections.values()
            (pool,) = pools.pools._container.values()
            assert pool.num_connections == 1

    def test_http_client_drops_connection_with_unread_body(self, http: HttpClient) -> None:
        with http_server(lambda r: Reply(body=r.path.encode())) as base:
            http.request("GET", f"{base}/one").close()
            assert http.request("GET", f"{base}/two").document(10) == b"/two"

    def test_http_client_does_not_follow_redirect(self, http: HttpClient) -> None:
        with (
            http_server(lambda _: Reply(307, {"Location": "../other?sig=1"})) as base,
            http.request("GET", f"{base}/a/b/c") as response,
        ):
            assert response.status == 307
            assert response.location == f"{base}/a/other?sig=1"

    @pytest.mark.parametrize("location", [None, "ftp://h/x", "http://u:p@h/", "http://[bad/"])
    def test_http_client_refuses_unusable_location(
        self, http: HttpClient, location: str | None
    ) -> None:
        headers = {} if location is None else {"Location": location}
        with (
            http_server(lambda _: Reply(302, headers)) as base,
            http.request("GET", base) as response,
            pytest.raises(RemoteError, match="302 Found without a usable Location"),
        ):
            _ = response.location


class TestBounds:
    def test_http_client_refuses_document_over_its_limit(self, http: HttpClient) -> None:
        with http_server(lambda _: Reply(body=b"12345")) as base:
            assert http.request("GET", base).document(5) == b"12345"
            with pytest.raises(RemoteError, match="longer than 4 bytes"):
                http.request("GET", base).document(4)

    def test_http_client_fails_when_body_ends_early(self, http: HttpClient) -> None:
        with (
            http_server(lambda _: Reply(body=b"12345", truncate=3)) as base,
            pytest.raises(UnreachableError, match="ended early"),
        ):
            http.request("GET", base).document(5)

    def test_http_client_fails_when_chunked_body_ends_early(self, http: HttpClient) -> None:
        def answer(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")

        with raw_server(answer) as base, pytest.raises(UnreachableError):
            http.request("GET", base).document(5)

    def test_http_client_gives_up_when_body_trickles_past_deadline(self, http: HttpClient) -> None:
        with (
            http_server(lambda _: Reply(body=bytes(10_000), delay=0.05)) as base,
            ends(after=0.3),
            within(0.4),
            pytest.raises(UnreachableError, match=LATE),
        ):
            http.request("GET", base).document(10_000)

    def test_http_client_gives_up_when_body_stalls_past_deadline(self, http: HttpClient) -> None:
        def answer(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
            peer.recv(1)

        with (
            raw_server(answer) as base,
            ends(after=0.3),
            within(0.4),
            pytest.raises(UnreachableError, match=LATE),
        ):
            http.request("GET", base).document(5)

    def test_http_client_gives_up_when_chunk_size_trickles_past_deadline(
        self, http: HttpClient
    ) -> None:
        """One read of ours is many of the socket's here, each of them soon enough."""

        def answer(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            trickle(peer, b"1")

        with (
            raw_server(answer) as base,
            ends(after=0.3),
            within(0.4),
            pytest.raises(UnreachableError, match=LATE),
        ):
            http.request("GET", base).document(5)

    def test_http_client_gives_up_when_tls_handshake_trickles_past_deadline(self) -> None:
        def answer(peer: socket.socket) -> None:
            peer.sendall(b"\x16\x03\x03\x40\x00")  # a TLS record of 16 KiB begins
            trickle(peer, b"\x00")

        with (
            raw_server(answer) as base,
            HttpClient() as http,
            ends(after=0.3),
            within(0.4),
            pytest.raises(UnreachableError, match="no answer in time"),
        ):
            http.request("GET", base.replace("http://", "https://"))

    @pytest.mark.parametrize("bounded_by", ["deadline", "read timeout"])
    def test_http_client_gives_up_when_response_head_trickles(
        self, http: HttpClient, monkeypatch: pytest.MonkeyPatch, bounded_by: str
    ) -> None:
        seconds = 0.4 if bounded_by == "deadline" else math.inf
        if bounded_by == "read timeout":
            monkeypatch.setattr(client, "READ_TIMEOUT", 0.4)

        def answer(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 200 OK\r\n")
            trickle(peer, b"X")

        with (
            raw_server(answer) as base,
            ends(after=0.3),
            within(seconds),
            pytest.raises(UnreachableError, match="no answer in time"),
        ):
            http.request("GET", base)

    def test_http_client_gives_up_when_request_body_trickles_past_deadline(
        self, http: HttpClient
    ) -> None:
        def pieces() -> Iterator[bytes]:
            while True:
                time.sleep(0.05)
                yield b"x"

        with (
            http_server(lambda _: Reply()) as base,
            within(0.3),
            pytest.raises(UnreachableError, match="could not be sent in time"),
        ):
            http.request("PATCH", base, body=pieces())

    def test_http_client_gives_up_when_peer_reads_nothing(
        self, http: HttpClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "READ_TIMEOUT", 0.3)

        given_up = threading.Event()

        def hold(_peer: socket.socket) -> None:
            given_up.wait()

        with raw_server(hold) as base:
            with ends(after=0.2), pytest.raises(UnreachableError, match="no answer in time"):
                http.request("PATCH", base, body=(bytes(1 << 20) for _ in range(64)))
            given_up.set()


class TestRepeating:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_http_client_retries_transient_status(
        self, http: HttpClient, pauses: list[float], status: int
    ) -> None:
        with http_server(in_turn(Reply(status), Reply(status), Reply(200, body=b"ok"))) as base:
            response = http.request("PUT", base, body=b"again", retry=Retry(4))
            assert response.document(10) == b"ok"
        assert len(pauses) == 2
        assert 0.5 <= pauses[0] < 1 <= pauses[1] < 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
    def test_http_client_does_not_retry_permanent_status(
        self, http: HttpClient, pauses: list[float], status: int
    ) -> None:
        with http_server(lambda _: Reply(status)) as base:
            assert http.request("GET", base, retry=Retry(4)).status == status
        assert not pauses

    def test_http_client_returns_last_response_when_retries_are_exhausted(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        with http_server(lambda _: Reply(503, body=b"maintenance")) as base:
            response = http.request("GET", base, retry=Retry(4))
            assert (response.status, response.said()) == (503, "maintenance")
        assert len(pauses) == 4

    def test_http_client_does_not_retry_by_default(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        with http_server(lambda _: Reply(503)) as base:
            assert http.request("POST", base).status == 503
        assert not pauses

    def test_http_client_waits_as_long_as_retry_after_says(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
        first, second = (Reply(429, {"Retry-After": value}) for value in ("7", date))
        with http_server(in_turn(first, second, Reply(200))) as base:
            assert http.request("GET", base, retry=Retry(4)).status == 200
        assert pauses[0] == 7
        assert 55 < pauses[1] <= 60

    def test_http_client_retries_at_once_for_retry_after_zero(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        """``Retry-After: 0`` was taken for none."""
        with http_server(in_turn(Reply(429, {"Retry-After": "0"}), Reply(200))) as base:
            assert http.request("GET", base, retry=Retry(1)).status == 200
        assert pauses == [0]

    @pytest.mark.parametrize(
        "value", ["soon", "-5", "9" * 40, "1.5", "", "Wed, 21 Oct 2015 07:28:00 GMT"]
    )
    def test_http_client_ignores_malformed_retry_after(
        self, http: HttpClient, pauses: list[float], value: str
    ) -> None:
        with http_server(in_turn(Reply(429, {"Retry-After": value}), Reply(200))) as base:
            assert http.request("GET", base, retry=Retry(1)).status == 200
        assert 0.5 <= pauses[0] < 1

    def test_http_client_does_not_wait_for_retry_after_of_hours(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        with http_server(lambda _: Reply(429, {"Retry-After": "3600"})) as base:
            assert http.request("GET", base, retry=Retry(4)).status == 429
        assert not pauses

    def test_http_client_retries_after_broken_connection(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        with (
            http_server(in_turn(BreakOff(), BreakOff(), Reply())) as base,
            http.request("GET", base, retry=Retry(2)) as response,
        ):
            assert response.status == 200
        assert len(pauses) == 2

    def test_http_client_gives_up_on_refused_connection(
        self, http: HttpClient, pauses: list[float]
    ) -> None:
        with http_server(lambda _: Reply()) as base:
            pass
        with pytest.raises(UnreachableError, match="connection refused") as caught:
            http.request("GET", base, retry=Retry(2))
        assert caught.value.hint.startswith("nothing listens there: check host and port")
        assert len(pauses) == 2

    def test_http_client_refuses_to_retry_streamed_body(self, http: HttpClient) -> None:
        with pytest.raises(ValueError, match="streamed"):
            http.request("PUT", "http://127.0.0.1:1/", body=iter([b""]), retry=Retry(1))

    def test_http_client_logs_retry_without_query(
        self, http: HttpClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        with http_server(in_turn(Reply(503), Reply(200))) as base:
            http.request("GET", f"{base}/x?sig={SECRET}", retry=Retry(4))
            assert f"GET {base}/x: 503 Service Unavailable; try 2 of 5" in caplog.text
        assert SECRET not in caplog.text


class TestSilence:
    """No message, log line or repr may carry a credential."""

    def test_http_client_error_shows_no_query_and_no_cause(
        self, http: HttpClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with http_server(lambda _: Reply()) as base:
            http.request("GET", f"{base}/ok?sig={SECRET}").close()
        with pytest.raises(UnreachableError) as caught:
            http.request("GET", f"{base}/x?sig={SECRET}", headers={"Authorization": SECRET})
        assert caught.value.message == f"GET {base}/x: connection refused"
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert "/ok?" in caplog.text  # urllib3 did log
        assert SECRET not in caplog.text

    def test_http_client_urllib3_warning_shows_no_query(
        self, http: HttpClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        def answer(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 200 OK\r\nA: b\r\nnot a header\r\nC: d\r\n\r\n")

        with raw_server(answer) as base:
            http.request("GET", f"{base}/x?sig={SECRET}").close()
        assert "Failed to parse headers" in caplog.text
        assert SECRET not in caplog.text

    @pytest.mark.parametrize(
        "header",
        [
            {"Authorization": f"Bearer {SECRET}"},
            {"Authorization": f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"},
            {"Cookie": f"a=b; session={SECRET}"},
        ],
    )
    def test_http_client_removes_credentials_repeated_in_response_text(
        self, http: HttpClient, header: dict[str, str]
    ) -> None:
        (value,) = header.values()
        with http_server(lambda _: Reply(400, body=f"you sent {value}, {SECRET}".encode())) as base:
            said = http.request("GET", base, headers=header).said()
        assert said.startswith("you sent")
        assert SECRET not in said
        assert value.split()[-1] not in said

    def test_http_client_makes_response_text_printable_and_short(self, http: HttpClient) -> None:
        body = b"a\x1b[31m\r\n\tb\xff\x00" + b"c" * 100_000
        with http_server(lambda _: Reply(400, body=body)) as base:
            said = http.request("GET", base).said()
        assert said.startswith("a [31m b\ufffd ccc")
        assert said.isprintable()
        assert len(said) == 301

    def test_http_client_refuses_url_with_password_without_showing_it(
        self, http: HttpClient
    ) -> None:
        with pytest.raises(InputError, match="user name or password") as caught:
            http.request("GET", f"http://me:{SECRET}@127.0.0.1/")
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}ü", f"{SECRET}\x00"])
    def test_http_client_refuses_malformed_header_without_showing_it(
        self, http: HttpClient, value: str
    ) -> None:
        with pytest.raises(InputError, match="'Authorization'") as caught:
            http.request("GET", "http://127.0.0.1:1/", headers={"Authorization": value})
        assert SECRET not in str(caught.value)


class TestPlainHttp:
    @pytest.mark.parametrize(
        ("policy", "url", "allowed"),
        [
            ("never", "http://127.0.0.1:1/", False),
            ("loopback", "http://127.0.0.1:1/", True),
            ("loopback", "http://[::1]:1/", True),
            ("loopback", "http://localhost:1/", True),
            ("loopback", "http://localhost.example:1/", False),
            ("loopback", "http://192.0.2.1:1/", False),
        ],
    )
    def test_http_client_speaks_plain_http_only_where_allowed(
        self, policy: client.PlainHttp, url: str, allowed: bool
    ) -> None:
        with (
            HttpClient(plain_http=policy) as http,
            pytest.raises(UnreachableError if allowed else RefusedError),
        ):
            http.request("GET", url)

    @pytest.mark.parametrize("url", ["ftp://host/", "host/path", "http://", "http://[::1/", ""])
    def test_http_client_refuses_other_urls(self, http: HttpClient, url: str) -> None:
        with pytest.raises(InputError, match="expected an http or https URL"):
            http.request("GET", url)


class TestTls:
    @pytest.fixture
    def ca(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def ca_file(self, ca: trustme.CA, tmp_path: Path) -> Path:
        ca.cert_pem.write_to_path(tmp_path / "ca.pem")
        return tmp_path / "ca.pem"

    @pytest.fixture
    def server(self, ca: trustme.CA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def test_http_client_trusts_given_ca(self, server: ssl.SSLContext, ca_file: Path) -> None:
        with (
            http_server(lambda _: Reply(), tls=server) as base,
            HttpClient(tls=Tls(ca_files=(ca_file,))) as http,
        ):
            assert http.request("GET", base).status == 200

    def test_http_client_refuses_certificate_of_unknown_ca(self, server: ssl.SSLContext) -> None:
        with (
            http_server(lambda _: Reply(), tls=server) as base,
            HttpClient() as http,
            pytest.raises(RemoteError, match="certificate is not trusted") as caught,
        ):
            http.request("GET", base, retry=Retry(4))
        assert not isinstance(caught.value, UnreachableError)  # a repeat will not help

    def test_http_client_refuses_certificate_for_another_host(
        self, ca: trustme.CA, ca_file: Path
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("elsewhere.example").configure_cert(context)
        with (
            http_server(lambda _: Reply(), tls=context) as base,
            HttpClient(tls=Tls(ca_files=(ca_file,))) as http,
            pytest.raises(RemoteError, match=r"certificate is not trusted: .*127\.0\.0\.1"),
        ):
            http.request("GET", base)

    def test_http_client_trusts_any_certificate_without_verification(
        self, server: ssl.SSLContext, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            http_server(lambda _: Reply(), tls=server) as base,
            HttpClient(tls=Tls(verify=False)) as http,
        ):
            assert http.request("GET", base).status == 200
        assert "not verified" in caplog.text

    def test_http_client_without_verification_reads_no_roots_of_the_system(
        self, ca_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They took 26 ms of each command that verifies nothing."""
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))  # OpenSSL's place of the system's roots
        assert Tls().context().get_ca_certs()
        assert not Tls(verify=False).context().get_ca_certs()

    @pytest.mark.parametrize("own_file", [True, False])
    def test_http_client_presents_client_certificate(
        self, ca: trustme.CA, ca_file: Path, server: ssl.SSLContext, tmp_path: Path, own_file: bool
    ) -> None:
        ca.configure_trust(server)
        server.verify_mode = ssl.CERT_REQUIRED
        client = ca.issue_cert("client.example")
        cert, key = tmp_path / "c.pem", tmp_path / "k.pem" if own_file else None
        client.cert_chain_pems[0].write_to_path(cert)
        client.private_key_pem.write_to_path(key or cert, append=True)
        tls = Tls((ca_file,), cert, key)
        with http_server(lambda _: Reply(), tls=server) as base:
            with HttpClient(tls=tls) as http:
                assert http.request("GET", base).status == 200
            with HttpClient(tls=Tls((ca_file,))) as http, pytest.raises(RemoteError):
                http.request("GET", base)

    @pytest.mark.parametrize("content", [None, b"", b"no certificate"])
    def test_http_client_names_unusable_certificate_file(
        self, tmp_path: Path, content: bytes | None
    ) -> None:
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(InputError, match=r"CA certificates from '.*ca.pem'"):
            HttpClient(tls=Tls(ca_files=(file,)))
        with pytest.raises(InputError, match=r"client certificate '.*ca.pem'"):
            HttpClient(tls=Tls(client_certificate=file))

    def test_http_client_reports_server_without_tls(self) -> None:
        with (
            http_server(lambda _: Reply()) as base,
            HttpClient() as http,
            pytest.raises(UnreachableError, match="TLS failed") as caught,
        ):
            http.request("GET", base.replace("http://", "https://"))
        assert "speaks TLS on this port" in caught.value.hint

    def test_http_client_does_not_load_system_cas_for_plain_http(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading them takes 25 ms, and a process of the command mode serves one call."""
        built = []
        context = Tls.context

        def count(tls: Tls) -> ssl.SSLContext:
            built.append(tls)
            return context(tls)

        monkeypatch.setattr(Tls, "context", count)
        with http_server(lambda _: Reply()) as base, HttpClient(plain_http="loopback") as http:
            assert http.request("GET", base).status == 200
            assert built == []
            for _ in range(2):
                with pytest.raises(UnreachableError):
                    http.request("GET", base.replace("http://", "https://"))
        assert built == [Tls()]


class TestProxy:
    @pytest.fixture(autouse=True)
    def no_proxies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http", "https", "all", "no"):
            monkeypatch.delenv(f"{name}_proxy", raising=False)
            monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)

    def test_http_client_uses_proxy_except_for_no_proxy_hosts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def proxy(request: Request) -> Reply:
            seen.append((request.headers["Host"], request.headers.get("Proxy-Authorization")))
            return Reply(body=b"proxied")

        with http_server(proxy) as base, http_server(lambda _: Reply(body=b"direct")) as direct:
            monkeypatch.setenv("HTTP_PROXY", base.replace("http://", f"http://me:{SECRET}@"))
            monkeypatch.setenv("NO_PROXY", "inside.invalid")
            with HttpClient(plain_http="allowed") as http:
                assert http.request("GET", "http://registry.invalid/").document(9) == b"proxied"
                assert http.request("GET", direct).document(9) == b"direct"
                with pytest.raises(RemoteError, match="host name is not known"):
                    http.request("GET", "http://inside.invalid/")
        basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
        assert seen == [("registry.invalid", f"Basic {basic}")]

    def test_http_client_remembers_no_more_proxies_than_256(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with http_server(lambda _: Reply()) as base:
            monkeypatch.setenv("HTTP_PROXY", base)
            with HttpClient(plain_http="allowed") as http:
                for number in range(300):
                    assert http.request("GET", f"http://h{number}.invalid/").status == 200
                assert len(http._proxies) == 300 - 256

    def test_http_client_honours_port_in_no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """skopeo reads NO_PROXY so, too."""
        monkeypatch.setenv("NO_PROXY", "one.invalid:80, two.invalid:8080")
        with http_server(lambda _: Reply(body=b"proxied")) as base:
            monkeypatch.setenv("HTTP_PROXY", base)
            with HttpClient(plain_http="allowed") as http:
                for url in ("http://one.invalid/", "http://two.invalid:8080/"):
                    with pytest.raises(RemoteError, match="host name is not known"):
                        http.request("GET", url)
                for url in ("http://one.invalid:8080/", "http://two.invalid/"):
                    assert http.request("GET", url).document(9) == b"proxied"

    def test_http_client_reports_refusal_of_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        with raw_server(refuse) as base, HttpClient() as http:
            monkeypatch.setenv("HTTPS_PROXY", base)
            with pytest.raises(UnreachableError, match=r"the proxy refused .* \(HTTP 407\)"):
                http.request("GET", "https://registry.invalid/")

    @pytest.mark.parametrize("url", ["http://registry.invalid/", "https://registry.invalid/"])
    @pytest.mark.parametrize(
        ("place", "words"),
        [("127.0.0.1:1", "connection refused"), ("proxy.invalid:3128", "host name is not known")],
    )
    @pytest.mark.parametrize("scheme", ["http://", ""])
    def test_http_client_names_proxy_that_is_down(
        self, monkeypatch: pytest.MonkeyPatch, url: str, scheme: str, place: str, words: str
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}me:{SECRET}@{place}")
        with (
            HttpClient(plain_http="allowed") as http,
            pytest.raises(RemoteError, match=f"by the proxy http://{place}: .*{words}") as caught,
        ):
            http.request("GET", url)
        assert "HTTPS_PROXY" in caught.value.hint
        assert SECRET not in str(caught.value)

    def test_http_client_refuses_malformed_proxy_without_showing_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"socks5://me:{SECRET}@127.0.0.1:1")
        with HttpClient() as http, pytest.raises(InputError, match="names a proxy") as caught:
            http.request("GET", "https://registry.invalid/")
        assert SECRET not in str(caught.value)
