"""The client of the key-provider protocol, against our own server: addresses, proxies, TLS."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest

from coco_kp.deadline import Caller, within
from coco_kp.errors import InputError, RemoteError, UnreachableError
from coco_kp.keyprovider import client
from coco_kp.keyprovider.address import TcpAddress, UnixAddress
from coco_kp.keyprovider.call import Call
from coco_kp.keyprovider.client import call_provider, check_health
from coco_kp.keyprovider.config import CmdProvider, GrpcProvider, GrpcTls
from coco_kp.keyprovider.service import key_provider
from coco_kp.model.encoding import MAX_MESSAGE
from tests.support import grpc_server
from tests.support.patience import ends
from tests.support.pki import Pki

ANYWHERE = TcpAddress(ip_address("127.0.0.1"), 0)
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def echo(call: Call) -> bytes:
    return call.request


@contextmanager
def serving(
    address: TcpAddress | UnixAddress = ANYWHERE, credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    with grpc_server.serving(key_provider(echo), address, credentials) as bound:
        yield bound


def answers(address: str, tls: GrpcTls | None = None) -> bool:
    """Return whether a server answers both, a call and a question for its health."""
    door = GrpcProvider(address, tls)
    assert check_health(door) == "SERVING"
    return call_provider("it", door, "keywrap", b'{"op": "keywrap"}') == b'{"op": "keywrap"}'


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@pytest.mark.parametrize("form", ["{}", "tcp://{}", "dns:///{}", "passthrough:///{}"])
def test_client_calls_and_asks_health_past_every_proxy(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The health check took proxies, and no tcp://: doctor failed where encrypt worked."""
    for variable in PROXIES:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving() as address:
        assert answers(form.format(address))


def test_client_calls_unix_socket_by_absolute_and_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(UnixAddress(tmp_path / "kp.sock")) as address:
        assert answers(address)
        assert answers("unix:kp.sock")


def test_client_takes_answer_as_long_as_a_request_may_be() -> None:
    with serving() as address:
        request = bytes(MAX_MESSAGE - 5)
        assert call_provider("it", GrpcProvider(address), "keywrap", request) == request


def test_client_refuses_address_that_is_none() -> None:
    door = GrpcProvider("http://127.0.0.1:1")
    for call in (check_health, lambda door: call_provider("it", door, "keywrap", b"")):
        with pytest.raises(InputError, match="is not host:port"):
            call(door)


def test_client_trusts_the_named_ca_and_no_other(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other")
    with serving(credentials=pki.server("127.0.0.1")) as address:
        assert answers(address, GrpcTls(str(pki.ca)))
        door = GrpcProvider(address, GrpcTls(str(other.ca)))
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            call_provider("it", door, "keywrap", b"{}")
        with pytest.raises(RemoteError, match="CERTIFICATE_VERIFY_FAILED"):
            check_health(door)


def test_client_without_ca_trusts_the_system_and_not_grpcs_own_roots(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))
    with serving(credentials=pki.server("127.0.0.1")) as address:
        assert answers(address, GrpcTls())
        monkeypatch.setenv("SSL_CERT_FILE", str(Pki(tmp_path / "other").ca))
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            call_provider("it", GrpcProvider(address, GrpcTls()), "keywrap", b"{}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
        with pytest.raises(InputError, match="no certificates of CAs"):
            call_provider("it", GrpcProvider(address, GrpcTls()), "keywrap", b"{}")
        (tmp_path / "0123abcd.0").write_bytes(pki.ca.read_bytes())
        assert answers(address, GrpcTls())


def test_client_expects_server_name_in_place_of_address(pki: Pki) -> None:
    with serving(credentials=pki.server("kp.example.org")) as address:
        assert answers(address, GrpcTls(str(pki.ca), server_name="kp.example.org"))
        for name in ("", "other.example.org"):
            door = GrpcProvider(address, GrpcTls(str(pki.ca), server_name=name))
            with pytest.raises(UnreachableError):
                call_provider("it", door, "keywrap", b"{}")


def test_client_shows_certificate_only_where_both_files_are_named(pki: Pki) -> None:
    certificate, key = map(str, pki.issue("client.example.org"))
    with serving(credentials=pki.server("127.0.0.1", clients=pki)) as address:
        assert answers(address, GrpcTls(str(pki.ca), certificate, key))
        for tls in (GrpcTls(str(pki.ca)), GrpcTls(str(pki.ca), cert_file=certificate)):
            with pytest.raises(UnreachableError):
                call_provider("it", GrpcProvider(address, tls), "keywrap", b"{}")


def test_client_reads_certificates_anew_for_each_call(pki: Pki, tmp_path: Path) -> None:
    used = tmp_path / "used.pem"
    used.write_bytes(Pki(tmp_path / "other").ca.read_bytes())
    with serving(credentials=pki.server("127.0.0.1")) as address:
        door = GrpcProvider(address, GrpcTls(str(used)))
        with pytest.raises(UnreachableError):
            call_provider("it", door, "keywrap", b"{}")
        used.write_bytes(pki.ca.read_bytes())
        assert answers(address, door.tls)


@pytest.mark.parametrize("kind", ["plain against TLS", "TLS against plain"])
def test_client_and_server_of_which_one_speaks_tls_do_not_talk(pki: Pki, kind: str) -> None:
    plain = kind.startswith("plain")
    with serving(credentials=pki.server("127.0.0.1") if plain else None) as address:
        door = GrpcProvider(address, None if plain else GrpcTls(str(pki.ca)))
        with pytest.raises(UnreachableError):
            call_provider("it", door, "keywrap", b"{}")


def test_client_says_which_certificate_file_it_cannot_use(pki: Pki, tmp_path: Path) -> None:
    certificate, key = map(str, pki.issue("client.example.org"))
    other_key = str(pki.issue("other.example.org")[1])
    (tmp_path / "empty").touch()
    (tmp_path / "broken").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    (tmp_path / "long").write_bytes(pki.ca.read_bytes() + b"\n" * 8 * 1024 * 1024)
    for tls, words in (
        (GrpcTls(str(tmp_path / "long")), "long' is longer than the 8388608 bytes"),  # it was cut
        (GrpcTls(str(tmp_path / "absent")), "absent': no such file"),
        (GrpcTls(str(tmp_path / "empty")), "empty' holds no certificate of a CA"),
        (GrpcTls(str(tmp_path / "broken")), "broken' holds no certificate of a CA"),
        (GrpcTls(str(pki.ca), certificate, other_key), "are not a certificate and its key"),
        (GrpcTls(str(pki.ca), certificate, str(tmp_path / "none")), "none': no such file"),
    ):
        with pytest.raises(InputError, match=words):
            call_provider("it", GrpcProvider("127.0.0.1:1", tls), "keywrap", b"{}")
    assert Path(key).exists()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time run out that would end a call as well."""
    monkeypatch.setattr(client, "TIMEOUT", 600)


@pytest.mark.usefixtures("endless")
def test_client_does_not_wait_for_a_server_when_its_own_caller_has_gone() -> None:
    caller, gone, waited = Caller(), threading.Event(), list[bool]()

    def hang(call: Call) -> bytes:
        caller.leave()
        waited.append(gone.wait(180))
        return call.request

    with grpc_server.serving(key_provider(hang), ANYWHERE) as address:
        with within(math.inf, caller), pytest.raises(RemoteError, match="answered CANCELLED"):
            call_provider("it", GrpcProvider(address), "keywrap", b"{}")
        gone.set()
    assert waited == [True]


@pytest.mark.usefixtures("endless")
def test_client_does_not_wait_for_a_program_when_its_own_caller_has_gone(tmp_path: Path) -> None:
    caller, fifo, program = Caller(), tmp_path / "fifo", tmp_path / "program"
    os.mkfifo(fifo)
    program.write_text(f"#!/bin/sh\necho > {fifo}\nexec sleep 180\n")
    program.chmod(0o700)

    def leave() -> None:
        fifo.read_bytes()
        caller.leave()

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    with ends(), within(math.inf, caller), pytest.raises(UnreachableError, match="not answer"):
        call_provider("it", CmdProvider(str(program), ()), "keywrap", b"{}")
    leaving.join()
